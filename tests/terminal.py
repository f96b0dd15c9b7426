"""Consoles for tests: what a terminal shows in the end, and a clock that tests set."""

import io
import re

from rich.console import Console

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+")


class Clock:
    """A clock that stands still until a test moves `now`."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None, legacy_windows=False)


def no_terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=140)


def printed(console: Console) -> str:
    return console.file.getvalue()


def lines_of(console: Console) -> list[str]:
    return [line.rstrip() for line in printed(console).splitlines()]


def screen(console: Console) -> list[str]:
    """The lines that stand on a terminal once it has carried out all that the console sent."""
    rows, row, column = [""], 0, 0
    for piece in CONTROL.findall(printed(console)):
        if piece == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif piece == "\r":
            column = 0
        elif piece.startswith("\x1b["):
            if piece.endswith("A"):
                row = max(0, row - int(piece[2:-1] or 1))
            elif piece == "\x1b[2K":
                rows[row] = ""
        else:
            rows[row] = rows[row][:column].ljust(column) + piece + rows[row][column + len(piece) :]
            column += len(piece)
    while rows and not rows[-1].strip():
        rows.pop()
    return [line.rstrip() for line in rows]
