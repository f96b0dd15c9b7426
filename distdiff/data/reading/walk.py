"""Lists the image files of folders with one `scandir` per folder. Links are followed, but never in circles.

A folder that may not be read counts as empty here. `walk` and `is_locked` tell which folders these are.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from distdiff.data.reading.decoding import EXTENSIONS


@dataclass
class Walk:
    """Paths of the files below a folder, relative to that folder and with `/` between their parts.

    `others` holds the paths of files that are not images, broken links, hidden files with an image's extension, and
    hidden folders with images. `locked` holds the paths of folders that may not be read.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)


def walk(folder: Path) -> Walk:
    """The sorted files below `folder`. The files that lie directly in a folder come before those in its subfolders.

    Hidden files do not count as images.
    """
    found = Walk()
    _walk(os.fspath(folder), "", found, _at_or_above(folder))
    return found


def subfolders(folder: Path) -> list[str]:
    """The sorted names of the folders in `folder`.

    Hidden folders are left out, as are links to `folder` or a folder above it.
    """
    above = _at_or_above(folder)
    with _entries(folder) as entries:
        names = [entry.name for entry in entries if _is(entry.is_dir) and not entry.name.startswith(".")]
    return sorted(name for name in names if _identity(folder / name) not in above or is_locked(folder / name))


def hidden_subfolders(folder: Path) -> list[str]:
    """The sorted names of the hidden folders in `folder` that hold images."""
    with _entries(folder) as entries:
        names = [entry.name for entry in entries if _is(entry.is_dir) and entry.name.startswith(".")]
    return sorted(name for name in names if holds_images(folder / name))


def holds_images(folder: Path | str) -> bool:
    """Whether an image file lies directly in `folder`."""
    with _entries(folder) as entries:
        return any(is_image(entry.name) and _is(entry.is_file) for entry in entries)


def files_in(folder: Path) -> tuple[list[str], list[str]]:
    """The sorted names of the image files that lie directly in `folder`, and of its other files that are not hidden."""
    images, others = [], []
    with _entries(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and not _is(entry.is_dir):
                (images if is_image(entry.name) and _is(entry.is_file) else others).append(entry.name)
    return sorted(images), sorted(others)


def is_image(name: str) -> bool:
    """Whether a file name has an image's extension, in upper or lower case, and no leading dot."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def is_locked(folder: Path | str) -> bool:
    """Whether `folder` is a folder that may not be read."""
    try:
        with os.scandir(folder):
            return False
    except PermissionError:
        return True
    except OSError:
        return False


@contextmanager
def _entries(folder: Path | str) -> Iterator[Iterator[os.DirEntry]]:
    try:
        scanned = os.scandir(folder)
    except PermissionError:
        yield iter(())
        return
    with scanned as entries:
        yield entries


def _walk(folder: str, prefix: str, found: Walk, visited: set[tuple[int, int] | None]) -> None:
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if _is(entry.is_dir) else files).append(entry)
                elif _is(entry.is_dir):
                    found.others += [f"{prefix}{entry.name}/"] if holds_images(entry.path) else []
                elif is_image(entry.name.lstrip(".")):
                    found.others.append(prefix + entry.name)
    except PermissionError:
        found.locked.append(prefix.rstrip("/"))
    for entry in sorted(files, key=lambda entry: entry.name):
        (found.images if is_image(entry.name) and _is(entry.is_file) else found.others).append(prefix + entry.name)
    for entry in sorted(folders, key=lambda entry: entry.name):
        identity = _identity(entry.path)
        if identity is None or identity not in visited:
            visited.add(identity)
            _walk(entry.path, f"{prefix}{entry.name}/", found, visited)


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # the entry is a link to itself, or lies where nothing may be looked up
        return False


def _at_or_above(folder: Path) -> set[tuple[int, int] | None]:
    return {_identity(place) for place in (folder, *folder.resolve().parents)}


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except PermissionError:
        return None
    return stat.st_dev, stat.st_ino
