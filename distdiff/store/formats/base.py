"""The base class of the storage formats."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

from datasets import Features, Value

from distdiff.errors import UserError
from distdiff.placeholders import absent
from distdiff.store.journal import Row
from distdiff.store.options import StorageOptions
from distdiff.texts import UnreadableFile

ASIDES = ".unfinished"  # folder of files that are being written, or that a crash left unfinished


class Storage(ABC):
    """Stores a directory's images, each completely or not at all.

    The `file_name` in an image's row identifies the image.
    """

    columns: ClassVar[dict[str, Value]] = {}  # metadata columns that say where an image is

    def __init__(self, directory: Path, options: StorageOptions, declared: Mapping[str, str] | None = None) -> None:
        """`declared` maps the names of metadata columns to their kinds, as far as the kinds are known beforehand."""
        self.directory = directory
        self.options = options
        self.declared = declared or {}

    @abstractmethod
    def present(self, rows: Sequence[Row]) -> dict[str, Row]:
        """The rows whose images exist, by file name. If an image has two rows, the later row is returned."""

    @abstractmethod
    def begin(self, share: str) -> None:
        """Prepares for writing the images of the share `share`, whose last writer may have crashed."""

    @abstractmethod
    def write(self, batch: Sequence[tuple[Row, bytes]]) -> None:
        """Stores images and adds their rows to the share's journal. Call `begin` first.

        An image without a row does not count as stored.
        """

    @abstractmethod
    def seal(self) -> None:
        """Closes the open files of all shares.

        The caller must hold the directory's lock, and no process may write images meanwhile. Call `begin` before
        writing further images.
        """

    @abstractmethod
    def clear(self) -> None:
        """Removes every image."""

    @abstractmethod
    def reader(self, rows: Sequence[Row]) -> Callable[[int], bytes]:
        """A function that reads the image file of `rows[i]` of a finished directory.

        Raises `UserError` if a row names a file outside of the directory.
        """

    @abstractmethod
    def card(self, text: str, identity: str, features: Features) -> str:
        """The dataset card `text` with all that `datasets` needs to load the directory.

        `identity` names the directory's contents.
        """


def make_asides(directory: Path, share: str) -> Path:
    """Makes the folder in which the share named `share` writes. Raises an error if `directory` was removed."""
    folder = directory / ASIDES / share
    folder.parent.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    return folder


def file_below(root: Path, name: str) -> Path:
    """The path of the file `name`, which comes from metadata, with links resolved.

    Raises `UserError` if the path is not below `root`, and `UnreadableFile` for a link that leads nowhere.
    """
    check_below(root, name)
    if os.path.islink(root / name) and not os.path.exists(root / name):
        raise UnreadableFile(root / name, absent(root / name))
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise _outside(root, name)
    return path


def check_below(root: Path, name: str) -> None:
    """Raises `UserError` if `name`, read as a path, leads out of `root`. Links are not followed."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise _outside(root, name)


def _outside(root: Path, name: str) -> UserError:
    return UserError(f"{root}: its metadata name a file outside of it, {name!r}")
