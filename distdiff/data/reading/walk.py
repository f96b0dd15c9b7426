"""Lists the image files of folders with one `scandir` per folder. Links are followed, but never in circles."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from distdiff.data.reading.decoding import EXTENSIONS


@dataclass
class Walk:
    """Paths of the files below a folder, relative to that folder and with `/` between their parts.

    `others` holds the paths of files that are not images, broken links, hidden files with an image's extension, and
    unreadable folders.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def walk(folder: Path) -> Walk:
    """The sorted files below `folder`. The files that lie directly in a folder come before those in its subfolders.

    Hidden files do not count as images.
    """
    found = Walk()
    _walk(os.fspath(folder), "", found, {_identity(place) for place in (folder, *folder.resolve().parents)})
    return found


def subfolders(folder: Path) -> list[str]:
    """The sorted names of the folders in `folder`.

    Hidden folders are left out, as are links to `folder` or a folder above it.
    """
    above = {_identity(place) for place in (folder, *folder.resolve().parents)}
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is(entry.is_dir) and not entry.name.startswith(".")]
    return sorted(name for name in names if _identity(folder / name) not in above)


def hidden_subfolders(folder: Path) -> list[str]:
    """The sorted names of the hidden folders in `folder` that hold images."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is(entry.is_dir) and entry.name.startswith(".")]
    return sorted(name for name in names if holds_images(folder / name))


def holds_images(folder: Path) -> bool:
    """Whether an image file lies directly in `folder`."""
    with os.scandir(folder) as entries:
        return any(is_image(entry.name) and _is(entry.is_file) for entry in entries)


def loose_images(folder: Path) -> list[str]:
    """The sorted names of the image files that lie directly in `folder`."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image(entry.name) and _is(entry.is_file))


def is_image(name: str) -> bool:
    """Whether a file name has an image's extension, in upper or lower case, and no leading dot."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def _walk(folder: str, prefix: str, found: Walk, visited: set[tuple[int, int]]) -> None:
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if _is(entry.is_dir) else files).append(entry)
                elif is_image(entry.name.lstrip(".")):
                    found.others.append(prefix + entry.name)
    except PermissionError:
        found.others.append(prefix)
    for entry in sorted(files, key=lambda entry: entry.name):
        (found.images if is_image(entry.name) and _is(entry.is_file) else found.others).append(prefix + entry.name)
    for entry in sorted(folders, key=lambda entry: entry.name):
        identity = _identity(entry.path)
        if identity not in visited:
            visited.add(identity)
            _walk(entry.path, f"{prefix}{entry.name}/", found, visited)


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # the entry is a link to itself
        return False


def _identity(path: str | Path) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino
