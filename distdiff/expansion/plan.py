"""The work list: copies of every source image, each with its own seed."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distdiff.data.images import LabelledImages, Unreadable
from distdiff.expansion.dealing import Balanced, Proportional
from distdiff.expansion.strengths import strengths_of
from distdiff.generator.noise import image_seed
from distdiff.store.names import safe_name

CHUNK = 10_000  # file names made at a time


@dataclass(frozen=True)
class WorkItem:
    """One image to make: `position` of its source among the originals, and what names and seeds it."""

    position: int
    copy: int
    seed: int
    strength: float
    label: int
    class_name: str
    source: str
    file_name: str


class ExpansionPlan(Sequence[WorkItem]):
    """All copies of all sources, in an order in which a larger `factor` only appends; items are made when asked for.

    Planning costs a name a source, not an object an image: which copy of which source an item is, is computed.
    """

    def __init__(
        self,
        images: LabelledImages,
        factor: int,
        strength: Any,
        seed: int,
        extension: str = "png",
        balance: bool = False,
    ) -> None:
        """`strength`: a number, a list (one a copy, repeating) or a `{low, high}` range, drawn an image.

        `balance`: more copies of small classes than `factor` of each source, so that with their originals all are equal.
        """
        self.images = images
        self.factor = factor
        self.seed = seed
        self.extension = extension  # of the images' file names
        self._labels: list[int] = images.labels.tolist()
        self._strengths = strengths_of(strength)
        self._drawn = hasattr(strength, "keys")  # an image, from a range
        folders = [safe_name(name) for name in images.class_names]
        self._stems = [
            f"{folders[label]}/{safe_name(key)}" for label, key in zip(self._labels, images.keys, strict=True)
        ]
        self._deal = Balanced(images.labels, self._ranks(), factor) if balance else Proportional(len(images), factor)

    def __len__(self) -> int:
        return self._deal.count

    def __getitem__(self, index: int) -> WorkItem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        copy, position = map(int, self._deal.places(index))
        label, source = self._labels[position], self.images.keys[position]
        class_name = self.images.class_names[label]
        return WorkItem(
            position=position,
            copy=copy,
            seed=image_seed(self.seed, class_name, source, copy),
            strength=self._strength(copy, position),
            label=label,
            class_name=class_name,
            source=source,
            file_name=f"{self._stems[position]}__{copy:04d}.{self.extension}",
        )

    @property
    def words(self) -> str:
        """What is made of the sources."""
        return f"{self._deal.words} in {len(self.images.class_names)} classes"

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """Sources that cannot be read, so that nothing is made of them."""
        return self.images.unreadable

    def file_names(self) -> Iterator[str]:
        """Every item's path below the expanded dataset's directory, in order."""
        for start in range(0, len(self), CHUNK):
            copies, positions = self._deal.places(np.arange(start, min(start + CHUNK, len(self))))
            for copy, position in zip(copies.tolist(), positions.tolist(), strict=True):
                yield f"{self._stems[position]}__{copy:04d}.{self.extension}"

    def missing(self, done: Container[str]) -> np.ndarray:
        """The indices of items whose file names are not among `done`, (m,) int64."""
        indices = (index for index, name in enumerate(self.file_names()) if name not in done)
        return np.fromiter(indices, dtype=np.int64)

    def batches(self, indices: np.ndarray, batch_size: int, group: Callable[[float], float]) -> list[np.ndarray]:
        """Puts items of one group (equal `group(strength)`) into batches, in order."""
        copies, positions = self._deal.places(indices)
        if self._drawn:
            places = zip(copies.tolist(), positions.tolist(), strict=True)
            keys = np.array([group(self._strength(copy, position)) for copy, position in places])
        else:
            of_turn = np.array([group(strength) for strength in self._strengths])
            keys = of_turn[copies % len(of_turn)]
        members = [indices[keys == key] for key in dict.fromkeys(keys.tolist())]
        return [part for same in members for part in np.split(same, range(batch_size, len(same), batch_size))]

    def factor_with(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """The smallest factor, at least its own, whose plan has the images of these metadata rows too."""
        if not rows:
            return self.factor
        places = enumerate(zip(self._labels, self.images.keys, strict=True))
        position_of = {(self.images.class_names[label], key): position for position, (label, key) in places}
        positions = np.array([position_of[row["class_name"], row["source"]] for row in rows])
        copies = np.array([row["copy"] for row in rows])
        return max(self.factor, int(self._deal.least_factor(copies, positions).max()))

    def _strength(self, copy: int, position: int) -> float:
        """The number itself, the list's turn for the copy, or a uniform draw from `{low, high}` by its own seed."""
        if not self._drawn:
            return float(self._strengths[copy % len(self._strengths)])
        class_name = self.images.class_names[self._labels[position]]
        low, high = self._strengths
        seed = image_seed(self.seed, class_name, self.images.keys[position], copy, "strength")
        return float(low + (high - low) * (seed * 2.0**-63))

    def _ranks(self) -> np.ndarray:
        """A random number of each source, (n,): whose names come first must not decide which gets a copy more."""
        class_names, sources = self.images.class_names, zip(self._labels, self.images.keys, strict=True)
        seeds = (image_seed(self.seed, class_names[label], key, "source", "deal") for label, key in sources)
        return np.fromiter(seeds, dtype=np.int64, count=len(self._labels))
