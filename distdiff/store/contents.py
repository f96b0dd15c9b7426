"""What a directory must know about the images that it is to hold."""

from collections.abc import Container, Iterator, Sequence
from typing import Protocol

import numpy as np

from distdiff.data.images import Unreadable
from distdiff.store.journal import Row


class Contents(Protocol):
    """The images that a directory holds once it is complete, by their file names: an expansion's plan, or what is copied."""

    @property
    def unreadable(self) -> Sequence[Unreadable]:
        """Sources that are skipped because they cannot be read."""

    def file_names(self) -> Iterator[str]:
        """Every image's path below the directory, in the order of the metadata."""

    def missing(self, done: Container[str]) -> np.ndarray:
        """The positions of images whose file names are not among `done`, (m,) int64."""

    def factor_with(self, rows: Sequence[Row]) -> int:
        """The copies per source of a plan that would also include the images of these metadata rows."""
