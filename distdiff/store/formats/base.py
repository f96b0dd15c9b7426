"""What every storage format does."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

from datasets import Features, Value

from distdiff.errors import UserError
from distdiff.store.journal import Row
from distdiff.store.options import StorageOptions

ASIDES = ".unfinished"  # one folder for what is being written: what a crash leaves there goes with it


class Storage(ABC):
    """Where a directory's images are, and how they get there whole. Images are known by the `file_name` of their row."""

    columns: ClassVar[dict[str, Value]] = {}  # of the metadata: where an image is

    def __init__(self, directory: Path, options: StorageOptions, declared: Mapping[str, str] | None = None) -> None:
        """`declared`: the kinds of metadata columns that are known before there are values, by name."""
        self.directory = directory
        self.options = options
        self.declared = declared or {}

    @abstractmethod
    def present(self, rows: Sequence[Row]) -> dict[str, Row]:
        """Those rows whose image is there, by file name; of two for one image the later."""

    @abstractmethod
    def begin(self, share: str) -> None:
        """Makes ready for writing as the share of that name, whatever its last writer left."""

    @abstractmethod
    def write(self, batch: Sequence[tuple[Row, bytes]]) -> None:
        """Puts images in place and their rows into the share's journal, each both or neither; after `begin`."""

    @abstractmethod
    def seal(self) -> None:
        """Closes what is open of any share, once no image is missing; whoever calls holds the directory's lock."""

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
    """Where the share of that name writes; a directory that was removed must not half come back."""
    folder = directory / ASIDES / share
    folder.parent.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    return folder


def file_below(root: Path, name: str) -> Path:
    """The path of a file that metadata name, links resolved; raises `UserError` where it is not below `root`."""
    check_below(root, name)
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise _outside(root, name)
    return path


def check_below(root: Path, name: str) -> None:
    """Raises `UserError` for a name that leads out of a directory as it is spelled; looks at no file."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise _outside(root, name)


def _outside(root: Path, name: str) -> UserError:
    return UserError(f"{root}: its metadata name a file outside of it, {name!r}")
