"""Which copy of which source each item of a plan is, by arithmetic: `expansion.factor` and `expansion.balance`."""

from abc import ABC, abstractmethod

import numpy as np


class Deal(ABC):
    """Copies dealt to the sources of a plan; item i is the same at every factor, so a larger one only appends.

    `count` is the number of items. Arguments and results are integers or arrays (m,) of them.
    """

    count: int

    @abstractmethod
    def places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The copies, and the positions of the sources, of the items at `indices`."""

    @abstractmethod
    def least_factor(self, copies: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The smallest factor at which these copies of the sources at `positions` are dealt."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What every source or class gets."""


class Proportional(Deal):
    """`factor` copies of every source: item i is copy i // n of source i % n, for n sources."""

    def __init__(self, num_sources: int, factor: int) -> None:
        self.num_sources = num_sources
        self.factor = factor
        self.count = num_sources * factor

    def places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.divmod(indices, self.num_sources)

    def least_factor(self, copies: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return np.asarray(copies) + 1

    @property
    def words(self) -> str:
        return f"{self.factor} copies of each of {self.num_sources:,} source images"


class Balanced(Deal):
    """N (1 + factor) − n_c copies for each class of n_c > 0 sources, N the most of these, so that all have N (1 + factor) images.

    A class deals to its sources in turn, one copy each, in the order of their `ranks`. First come the N − n_c items of
    each class that bring it up to N, class by class, then for every unit of the factor N of each class.
    """

    def __init__(self, labels: np.ndarray, ranks: np.ndarray, factor: int) -> None:
        """`labels` and `ranks` (n,), of each source; ranks that do not depend on what else there is in the class."""
        self.order = np.lexsort((ranks, labels))  # positions, class by class
        _, classes, self.sizes = np.unique(labels, return_inverse=True, return_counts=True)
        self.starts = np.cumsum(self.sizes) - self.sizes  # of each class in `order`
        self.turn = np.empty_like(self.order)  # of each source in its class
        self.turn[self.order] = np.arange(len(labels)) - self.starts[classes[self.order]]
        self.classes = classes
        self.largest = int(self.sizes.max(initial=1))
        self.lacking = self.largest - self.sizes
        self.ends = np.cumsum(self.lacking)  # of each class's first items
        self.first = int(self.lacking.sum())
        self.per_class = self.largest * (1 + factor)
        self.count = self.first + self.largest * factor * len(self.sizes)

    def places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        blocks, within = np.divmod(indices - self.first, self.largest)
        units, classes = np.divmod(blocks, len(self.sizes))
        early = units < 0
        classes = np.where(early, np.searchsorted(self.ends, indices, side="right"), classes)
        turns = self.lacking[classes] + np.where(early, indices - self.ends[classes], units * self.largest + within)
        copies, turns = np.divmod(turns, self.sizes[classes])
        return copies, self.order[self.starts[classes] + turns]

    def least_factor(self, copies: np.ndarray, positions: np.ndarray) -> np.ndarray:
        sizes = self.sizes[self.classes[positions]]
        return np.maximum(1, (np.asarray(copies) * sizes + self.turn[positions] + sizes) // self.largest)

    @property
    def words(self) -> str:
        return (
            f"of {len(self.order):,} source images, so many that each class has {self.per_class:,} with its originals,"
        )
