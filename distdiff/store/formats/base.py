"""What every storage format does."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

from datasets import Features, Value

from distdiff.errors import UserError
from distdiff.store.journal import Row
from distdiff.store.options import StorageOptions

ASIDES = ".unfinished"  # holds what is being written, so that removing it removes what a crash left


class Storage(ABC):
    """Stores a directory's images, each completely or not at all. An image is identified by the `file_name` of its row."""

    columns: ClassVar[dict[str, Value]] = {}  # metadata columns that say where an image is

    def __init__(self, directory: Path, options: StorageOptions, declared: Mapping[str, str] | None = None) -> None:
        """`declared`: the kinds of metadata columns that are known before there are values, by name."""
        self.directory = directory
        self.options = options
        self.declared = declared or {}

    @abstractmethod
    def present(self, rows: Sequence[Row]) -> dict[str, Row]:
        """The rows whose image exists, by file name; of two rows for one image, the later one."""

    @abstractmethod
    def begin(self, share: str) -> None:
        """Prepares for writing as the share with this name, whatever its last writer left."""

    @abstractmethod
    def write(self, batch: Sequence[tuple[Row, bytes]]) -> None:
        """Stores images and adds their rows to the share's journal, for each image both or neither; call `begin` first."""

    @abstractmethod
    def seal(self) -> None:
        """Closes the open files of all shares once no image is missing; the caller holds the directory's lock."""

    @abstractmethod
    def clear(self) -> None:
        """Removes every image."""

    @abstractmethod
    def reader(self, rows: Sequence[Row]) -> Callable[[int], bytes]:
        """Reads the image file of row i of a finished directory; raises `UserError` for a place outside of it."""

    @abstractmethod
    def card(self, text: str, identity: str, features: Features) -> str:
        """The dataset card with what `datasets` needs to load the directory, whose content has this identity."""


def make_asides(directory: Path, share: str) -> Path:
    """Makes the folder in which the share with this name writes; a directory that was removed is not made again."""
    folder = directory / ASIDES / share
    folder.parent.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    return folder


def file_below(root: Path, name: str) -> Path:
    """The path, with links resolved, of a file named in metadata; raises `UserError` if it is not below `root`."""
    check_below(root, name)
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise _outside(root, name)
    return path


def check_below(root: Path, name: str) -> None:
    """Raises `UserError` for a name whose spelling leads out of a directory; does not look at files."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise _outside(root, name)


def _outside(root: Path, name: str) -> UserError:
    return UserError(f"{root}: its metadata name a file outside of it, {name!r}")
