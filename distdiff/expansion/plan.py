"""The work list: every source image times every copy, each with its own seed."""

import hashlib
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distdiff.config.validation import strengths_of
from distdiff.data.images import LabelledImages
from distdiff.expansion.names import safe_name


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
    """All copies of all sources, copy by copy, so that a larger `factor` only appends; items are made when asked for.

    Item i is copy i // n of source i % n, for n sources: planning costs a name a source, not an object an image.
    """

    def __init__(self, images: LabelledImages, factor: int, strength: Any, seed: int, extension: str = "png") -> None:
        """`strength`: a number, a list (one a copy, repeating) or a `{low, high}` range, drawn an image."""
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

    def __len__(self) -> int:
        return len(self.images) * self.factor

    def __getitem__(self, index: int) -> WorkItem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        copy, position = divmod(int(index), len(self._stems))
        label, source = self._labels[position], self.images.keys[position]
        class_name = self.images.class_names[label]
        return WorkItem(
            position=position,
            copy=copy,
            seed=image_seed(self.seed, class_name, source, copy),
            strength=self.strength_of(index),
            label=label,
            class_name=class_name,
            source=source,
            file_name=self.file_name(index),
        )

    def file_name(self, index: int) -> str:
        """The path of an item's image below the expanded dataset's directory."""
        copy, position = divmod(int(index), len(self._stems))
        return f"{self._stems[position]}__{copy:04d}.{self.extension}"

    def file_names(self) -> Iterator[str]:
        """Every item's path, in order."""
        return (f"{stem}__{copy:04d}.{self.extension}" for copy in range(self.factor) for stem in self._stems)

    def strength_of(self, index: int) -> float:
        """The number itself, the list's turn for the item's copy, or a uniform draw from `{low, high}` by its own seed."""
        copy, position = divmod(index, len(self._stems))
        if not self._drawn:
            return float(self._strengths[copy % len(self._strengths)])
        class_name = self.images.class_names[self._labels[position]]
        low, high = self._strengths
        seed = image_seed(self.seed, class_name, self.images.keys[position], copy, "strength")
        return float(low + (high - low) * (seed * 2.0**-63))

    def missing(self, done: Container[str]) -> np.ndarray:
        """The indices of items whose file names are not among `done`, (m,) int64."""
        indices = (index for index, name in enumerate(self.file_names()) if name not in done)
        return np.fromiter(indices, dtype=np.int64)

    def batches(self, indices: np.ndarray, batch_size: int, group: Callable[[float], float]) -> list[np.ndarray]:
        """Puts items of one group (equal `group(strength)`) into batches, in order."""
        if self._drawn:
            keys = np.array([group(self.strength_of(index)) for index in indices.tolist()])
        else:
            of_turn = np.array([group(strength) for strength in self._strengths])
            keys = of_turn[indices // len(self.images) % len(of_turn)]
        members = [indices[keys == key] for key in dict.fromkeys(keys.tolist())]
        return [part for same in members for part in np.split(same, range(batch_size, len(same), batch_size))]


def image_seed(seed: int, class_name: str, source: str, copy: int | str, purpose: str = "image") -> int:
    """A 63-bit seed that depends on nothing but the study's seed, the class, the source's key and the copy.

    `purpose` separates streams: choosing a strength must not shift the noise that follows.
    """
    text = "\0".join(map(str, (seed, class_name, source, copy)))
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=purpose.encode())
    return int.from_bytes(digest.digest(), "big") >> 1
