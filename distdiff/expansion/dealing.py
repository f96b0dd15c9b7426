"""Computes which copy of which source each item of a plan is, from `expansion.factor`, `balance` and `sources`."""

from abc import ABC, abstractmethod

import numpy as np


class Deal(ABC):
    """Decides how many copies each source of a plan gets, and in which order.

    Item i is the same at every factor, so a larger factor only appends items. `count` is the number of items. Arguments
    and results are integers or integer arrays (m,); a position is the index of a source among those that get copies.
    """

    count: int

    def __init__(self, labels: np.ndarray, ranks: np.ndarray) -> None:
        """`labels` (n,) are the sources' classes. Sources of a class get copies in ascending order of `ranks` (n,)."""
        self.order = np.lexsort((ranks, labels))  # positions, class by class
        self.labels, self.classes, self.sizes = np.unique(labels, return_inverse=True, return_counts=True)
        self.starts = np.cumsum(self.sizes) - self.sizes  # where each class begins in `order`
        self.turn = np.empty_like(self.order)  # each source's place in its class, from 0
        self.turn[self.order] = np.arange(len(labels)) - self.starts[self.classes[self.order]]

    @abstractmethod
    def places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The copy numbers and source positions of the items at `indices`."""

    @abstractmethod
    def least_factor(self, copies: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The smallest factor whose plan contains each copy, (m,). `positions` are those of the copies' sources."""

    def numbers(self, copies: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The index of each copy among the items of its class, counted from 0, (m,)."""
        return np.asarray(copies) * self.sizes[self.classes[positions]] + self.turn[positions]

    def numbered(self, labels: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The copy numbers and source positions of the items that have the indices `numbers` in the classes `labels`.

        This is the inverse of the method `numbers`.
        """
        classes = np.searchsorted(self.labels, labels)
        copies, turns = np.divmod(np.asarray(numbers), self.sizes[classes])
        return copies, self.order[self.starts[classes] + turns]

    @property
    @abstractmethod
    def words(self) -> str:
        """A phrase that says how many copies are made."""


class Proportional(Deal):
    """Makes `factor` copies of every source: with n sources, item i is copy i // n of source i % n."""

    def __init__(self, labels: np.ndarray, factor: int) -> None:
        super().__init__(labels, np.arange(len(labels)))
        self.num_sources = len(labels)
        self.factor = factor
        self.count = self.num_sources * factor

    def places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.divmod(indices, self.num_sources)

    def least_factor(self, copies: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return np.asarray(copies) + 1

    @property
    def words(self) -> str:
        return f"{self.factor} copies of each of {self.num_sources:,} source images"


class InTurn(Deal):
    """Gives the copies of each class to its sources in turn, one at a time, in the order of their `ranks`.

    A plan begins with `first[c]` items of each class c, class by class. After these, the plan has `factor` rounds, each
    with `unit[c]` items of each class c.
    """

    def __init__(
        self, labels: np.ndarray, ranks: np.ndarray, first: np.ndarray, unit: np.ndarray, factor: int, words: str
    ) -> None:
        """`first` and `unit` have one entry for each class that has sources, in ascending order of labels."""
        super().__init__(labels, ranks)
        self.first, self.unit, self.factor = first, unit, factor
        self.first_ends, self.unit_ends = np.cumsum(first), np.cumsum(unit)
        self.num_first, self.per_unit = int(first.sum()), int(unit.sum())
        self.count = self.num_first + self.per_unit * factor
        self._words = words

    @classmethod
    def balanced(cls, labels: np.ndarray, ranks: np.ndarray, sizes: np.ndarray, factor: int) -> "InTurn":
        """Makes N (1 + factor) − n_c copies for a class of n_c real images, where N is the largest n_c.

        Every class then has N (1 + factor) images, real images and copies together. `labels` and `ranks` (n,)
        describe the sources that get copies; `sizes` (classes,) is the number of all real images in each class that has
        such sources.
        """
        largest = int(sizes.max(initial=1))
        words = f"of {len(labels):,} source images, so many that each class has {largest * (1 + factor):,} with its originals,"
        return cls(labels, ranks, largest - sizes, np.full_like(sizes, largest), factor, words)

    @classmethod
    def equal_counts(cls, labels: np.ndarray, ranks: np.ndarray, sizes: np.ndarray, factor: int) -> "InTurn":
        """Makes, for each class, `factor` times as many copies as the class has real images.

        Only the given sources get copies. The arguments are those of `balanced`.
        """
        words = f"{factor * int(sizes.sum()):,} copies of {len(labels):,} of {int(sizes.sum()):,} source images"
        return cls(labels, ranks, np.zeros_like(sizes), sizes, factor, words)

    def places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        early = indices < self.num_first
        units, within = np.divmod(indices - self.num_first, self.per_unit)
        place = np.where(early, indices, within)
        classes = np.where(
            early,
            np.searchsorted(self.first_ends, place, side="right"),
            np.searchsorted(self.unit_ends, place, side="right"),
        )
        ends, sizes = np.where(early, self.first_ends[classes], self.unit_ends[classes]), self.sizes[classes]
        starts = ends - np.where(early, self.first[classes], self.unit[classes])
        turns = np.where(early, 0, self.first[classes] + units * self.unit[classes]) + place - starts
        copies, turns = np.divmod(turns, sizes)
        return copies, self.order[self.starts[classes] + turns]

    def least_factor(self, copies: np.ndarray, positions: np.ndarray) -> np.ndarray:
        classes = self.classes[positions]
        later = self.numbers(copies, positions) - self.first[classes]
        return np.maximum(1, later // self.unit[classes] + 1)

    @property
    def words(self) -> str:
        return self._words
