"""What happens to files between the people who make them and those who use them, and what must be said of each.

A table of readers (`Reader`) times the table of damages (`DAMAGES`) is a test: every reader is given every damage. To
add a reader is to add one entry to the table of its room (`test_broken_*.py`).
"""

import functools
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distdiff.errors import UserError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Not Found</title></head><body>404</body></html>\n"
KEY = "annex/objects/Zx/9K/SHA256E-s7--0/SHA256E-s7--0"


def _cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _link(file: Path) -> None:
    file.unlink()
    file.symlink_to(f"../.git/{KEY}")


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _picture(file: Path) -> None:
    file.unlink()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(file, "PNG")


def _archive(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("a.txt", "b")


def _within(file: Path, more: bytes) -> None:
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(content[:middle] + more + content[middle:])


# What becomes of a file, and the words that must be in the message. No words: the reader has its own.
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (_cut, ""),
    "empty": (lambda file: file.write_bytes(b""), "it is empty"),
    "git-lfs pointer": (lambda file: file.write_bytes(LFS), "it is a git-lfs pointer, not the file itself"),
    "git-annex pointer": (
        lambda file: file.write_bytes(f"/{KEY}\n".encode()),
        "it is a git-annex pointer, not the file",
    ),
    "git-annex link": (_link, "a link of git-annex to content that is not here"),
    "web page": (lambda file: file.write_bytes(PAGE), "it is a web page, not the file itself"),
    "picture": (_picture, ""),
    "archive": (_archive, ""),
    "text": (lambda file: file.write_text("hello\n"), ""),
    "other table": (lambda file: file.write_text('{"a": {"b": [1, null]}}\n'), ""),
    "list": (lambda file: file.write_text("[3]\n"), ""),
    "number": (lambda file: file.write_text("3\n"), ""),
    "noise": (lambda file: file.write_bytes(np.random.default_rng(0).bytes(3000)), ""),
    "zeros": (lambda file: file.write_bytes(bytes(file.stat().st_size)), ""),
    "NUL": (lambda file: _within(file, b"\0"), ""),
    "Latin-1": (lambda file: _within(file, b"caf\xe9"), ""),
    "folder": (_folder, "it is a folder, not a file"),
    "missing": (lambda file: file.unlink(), ""),
    "locked": (lambda file: file.chmod(0), "permission denied"),
}


@dataclass(frozen=True)
class Reader:
    """What reads one of a user's files.

    `make(folder)` writes all that is needed, whole; `file` is the path below the folder of what is then damaged, and
    `read(folder)` reads it. `harmless` are the damages that need no word, since the file is still valid with them or is
    not read in them. `shown` is what notes call the file, if not by its path.
    """

    make: Callable[[Path], object]
    file: str
    read: Callable[[Path], object]
    harmless: tuple[str, ...] = ()
    shown: str | None = None


def cases(readers: Mapping[str, Reader]) -> list[tuple[str, str]]:
    return [(name, damage) for name in readers for damage in DAMAGES]


_PLACE = tempfile.TemporaryDirectory(prefix="distdiff-whole-")  # removed when the tests end


@functools.cache
def made(make: Callable[[Path], object]) -> Path:
    """A folder in which `make` has written, for all tests together; nothing may be changed in it."""
    folder = Path(tempfile.mkdtemp(dir=_PLACE.name))
    make(folder)
    return folder


def whole(reader: Reader, folder: Path) -> Path:
    """A copy of all that the reader needs, in `folder`; the file that may be damaged."""
    shutil.copytree(made(reader.make), folder)
    return folder / reader.file


def check_said(reader: Reader, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Damages the file, reads it, and checks that what is said is one line with the user's path and the cause."""
    break_file, words = DAMAGES[damage]
    folder = tmp_path / "given"
    file = whole(reader, folder)
    break_file(file)
    if damage == "locked" and _can_read(file):
        pytest.skip("this user may read everything")
    capsys.readouterr()
    message = None
    try:
        reader.read(folder)
    except UserError as error:
        message = str(error)
        assert "\n" not in message, message
    printed = capsys.readouterr().out
    if damage in reader.harmless:
        return message or printed
    if message is None:
        lines = [line for line in printed.splitlines() if (reader.shown or file.name) in line]
        assert len(lines) == 1, f"nothing is said; printed: {printed}"
        message = lines[0]
    if reader.shown is not None and reader.shown in message:
        assert words.lower() in message.lower(), message
        return message
    places = {
        place: file.relative_to(place).as_posix() for place in (*file.parents, file) if place.is_relative_to(folder)
    }
    shown = any(str(place) in message and rest.removesuffix(".") in message for place, rest in places.items())
    assert shown, f"no path: {message}"
    assert words in message, message
    assert str(tmp_path / "cache") not in message, message
    return message


def _can_read(file: Path) -> bool:
    try:
        file.read_bytes()
    except PermissionError:
        return False
    return True
