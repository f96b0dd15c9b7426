"""The console, and the log file in a run's directory, to which the same lines are written."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, NewLine
from rich.control import Control
from rich.live_render import LiveRender

LOG = "log.txt"
BARS = (Control, LiveRender, NewLine)  # a progress display prints such objects, or calls `print` without objects
FILE_WIDTH = 140  # a log file has room for whole lines


class LoggedConsole(Console):
    """A console that, inside a `logging_to` block, also writes to a file all that it prints, except progress bars."""

    _log: Console | None = None

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*objects, **options)
        if self._log is not None and not self.quiet and objects and not any(isinstance(item, BARS) for item in objects):
            with contextlib.suppress(OSError):  # a full disk is reported later, when a result cannot be written
                self._log.print(*objects, **options)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Inside the block, nothing is printed or logged, and no progress is shown."""
        before, self.quiet = self.quiet, True
        try:
            yield
        finally:
            self.quiet = before

    @contextlib.contextmanager
    def logging_to(self, path: Path) -> Iterator[None]:
        """Appends the lines printed inside the block to the file `path`. If it cannot be opened, no log is kept."""
        before = self._log
        with contextlib.ExitStack() as closing:
            with contextlib.suppress(OSError):
                file = closing.enter_context(open(path, "a", encoding="utf-8", errors="replace", buffering=1))
                closing.callback(setattr, self, "_log", before)
                self._log = _console(Console, FILE_WIDTH, file=file, force_terminal=False, color_system=None)
            yield


def _console(kind: type[Console], width: int | None = None, **options: Any) -> Any:
    return kind(highlight=False, markup=False, soft_wrap=True, width=width, **options)  # names may hold brackets


console: LoggedConsole = _console(LoggedConsole)
if not console.is_terminal:
    console = _console(LoggedConsole, FILE_WIDTH)
