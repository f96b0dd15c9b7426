"""The interface for asking which images an expanded dataset's directory is to hold."""

from collections.abc import Container, Iterator, Sequence
from typing import Protocol

import numpy as np

from distdiff.data.images import Unreadable
from distdiff.store.journal import Row


class Contents(Protocol):
    """The images that a complete directory holds.

    These are the images of an expansion's plan, or images that are copied from other directories.
    """

    @property
    def unreadable(self) -> Sequence[Unreadable]:
        """Sources that are skipped because they cannot be read."""

    def file_names(self) -> Iterator[str]:
        """Every image's path below the directory, in the order of the metadata rows."""

    def missing(self, done: Container[str]) -> np.ndarray:
        """The positions of images whose file names are not among `done`, (m,) int64."""

    def factor_with(self, rows: Sequence[Row]) -> int:
        """The number of copies per source in a directory that has these contents and also the images of `rows`."""
