"""Remembers across runs what was learnt about each image file, so that an unchanged file is not decoded again."""

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from PIL import __version__ as pillow

from distdiff.caching.fingerprint import fingerprint
from distdiff.data.reading.decoding import READING, Facts

FOLDER = "examined"
FORSAKEN = 3600  # seconds; an older temporary file was abandoned, since writing such a file takes only moments
SETTLED = 2.0  # seconds; a file that changes again sooner than this may keep its time stamp


@dataclass(frozen=True)
class Seen:
    """A readable image file: a hash of its bytes, and the facts about its image."""

    content: str
    facts: Facts


@dataclass(frozen=True)
class Stamp:
    """What tells whether a file has changed: its device, inode and size, and two times in nanoseconds.

    `modified` is when the file's content last changed, and `changed` is when its inode last changed.
    """

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, path: Path | str) -> "Stamp":
        stat = os.stat(path)
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    @property
    def settled(self) -> bool:
        return time.time() - self.modified / 1e9 > SETTLED

    def as_list(self) -> list[int]:
        return [self.device, self.inode, self.size, self.modified, self.changed]


@dataclass
class Examined:
    """What is known about the image files of one source. `listing` is the name of the source.

    The facts are saved in a JSON file below `cache_dir`. If `cache_dir` or `listing` is None, nothing is saved. `file`
    looks up a path, and returns the facts only if the file's stamp is still the same. `content` looks up the hash of a
    file's bytes, wherever the file lies. A JSON file is ignored if it is damaged, or if another version of the image
    readers wrote it.
    """

    cache_dir: Path | None
    listing: str | None
    files: dict[str, list[Any]] = field(default_factory=dict)  # absolute path -> [*stamp, hash of the bytes]
    contents: dict[str, list[Any]] = field(
        default_factory=dict
    )  # hash of the bytes -> the values of the image's `Facts`
    _new: bool = False

    def __post_init__(self) -> None:
        self._load()

    def file(self, path: str, stamp: Stamp) -> Seen | None:
        content = self.hash_of(path, stamp)
        return None if content is None else self.content(content)

    def hash_of(self, path: str, stamp: Stamp) -> str | None:
        """The hash of a file's bytes, also of a file that was never decoded."""
        match self.files.get(path):
            case [*known, str(content)] if known == stamp.as_list():
                return content
        return None

    def content(self, content: str) -> Seen | None:
        match self.contents.get(content):
            case [bool(), bool(), bool(), int() | None, bool()] as values:
                return Seen(content, Facts(*values))
            case [bool(), bool(), False, None] as values:  # an earlier version, which did not know negatives
                return Seen(content, Facts(*values))
        return None

    def note(self, seen: Seen, path: str | None = None, stamp: Stamp | None = None) -> None:
        """Remembers a readable file by its content.

        A `path` is remembered too, unless the file changed only moments ago.
        """
        values = list(astuple(seen.facts))
        if self.contents.get(seen.content) != values:
            self.contents[seen.content] = values
            self._new = True
        if path is not None and stamp is not None:
            self.note_hash(path, stamp, seen.content)

    def note_hash(self, path: str, stamp: Stamp, content: str) -> None:
        """Remembers the hash of a file's bytes, unless the file changed only moments ago."""
        if stamp.settled:
            self.files[path] = [*stamp.as_list(), content]
            self._new = True

    def save(self) -> None:
        """Adds the new entries to those that other processes have saved.

        If the JSON file cannot be written, nothing is saved.
        """
        if self._path is None or not self._new:
            return
        files, contents = self.files, self.contents
        self._load()
        self.files, self.contents = self.files | files, self.contents | contents
        aside = self._path.with_name(f".{self._path.name}-{os.getpid()}")
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._remove_forsaken()
            try:
                aside.write_text(json.dumps(self._made_by() | {"files": self.files, "contents": self.contents}))
                aside.replace(self._path)
            finally:
                aside.unlink(missing_ok=True)

    def _remove_forsaken(self) -> None:
        """Removes the temporary files that killed processes have left behind."""
        for path in self._path.parent.glob(f".{self._path.name}-*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > FORSAKEN:
                    path.unlink()

    @property
    def _path(self) -> Path | None:
        if self.cache_dir is None or self.listing is None:
            return None
        return self.cache_dir / FOLDER / f"{fingerprint({'listing': self.listing})}.json"

    def _made_by(self) -> dict[str, Any]:
        return {"reading": READING, "pillow": pillow, "listing": self.listing}

    def _load(self) -> None:
        self.files, self.contents = {}, {}
        if self._path is None:
            return
        with suppress(OSError, ValueError):
            found = json.loads(self._path.read_text())
            if isinstance(found, dict) and _holds(found, self._made_by()):
                self.files, self.contents = (dict(found.get(name) or {}) for name in ("files", "contents"))


def _holds(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(found.get(name) == value for name, value in wanted.items()) and all(
        isinstance(found.get(name), dict) for name in ("files", "contents")
    )


def top_folder(paths: Iterable[Path | str]) -> str:
    """The path of the deepest folder that holds all files in `paths`. It serves as `listing` in `Examined`.

    Files on several drives of Windows have no such folder; then the result names all their folders.
    """
    folders = sorted({os.path.abspath(os.path.dirname(path)) for path in paths} or {os.path.abspath("/")})
    try:
        return os.path.commonpath(folders)
    except ValueError:
        return os.pathsep.join(folders)
