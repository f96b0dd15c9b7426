"""A labelled set of images, read on demand, and its three splits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from distdiff.data.cache.squares import Squares
from distdiff.data.pixels import to_floats, to_tensor
from distdiff.data.reading.decoding import read_image, read_square
from distdiff.data.reading.fit import fit_image
from distdiff.data.reading.options import ReadingOptions
from distdiff.data.soft_labels import SoftLabels


@dataclass(frozen=True)
class Unreadable:
    """An image that was left out because it cannot be read."""

    key: str
    class_name: str
    reason: str


@dataclass(frozen=True)
class LabelledImages:
    """Images with one label each, from files or from the function `read`.

    `keys[i]` names image i and is unique within its class. `indices` has the positions of these images in the source.
    """

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray  # (n,) int64
    keys: tuple[str, ...]
    read: Callable[[int], Image.Image] | None  # image i of the source as RGB; None if the images are files
    indices: np.ndarray  # (n,) int64
    unreadable: tuple[Unreadable, ...] = ()  # the images that `without` left out
    file: Callable[[int], Path | str | BinaryIO] | None = None  # the file of image i of the source: a path or a stream
    soft: SoftLabels | None = None  # soft labels, if any; `labels` are then the classes of largest weight
    groups: np.ndarray | None = None  # (n,) int64; images with the same number always stay in the same split
    origins: tuple[tuple[int, ...], ...] | None = None  # for each image, the groups of all images that it was made from
    called: Callable[[int], str] | None = None  # the name of image i in errors, if it is a stream
    listing: str | None = None  # the source's name in the cache of facts about its files
    options: ReadingOptions = field(default_factory=ReadingOptions)
    identity: str | None = None  # a hash of the content of these images, if known

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, position: int) -> Image.Image:
        """The image at `position`, RGB, in its own size."""
        if self.file is None:
            return self.read(int(self.indices[position]))
        return read_image(*self.file_of(position), self.options.background)

    def square(self, position: int, size: int, fit: str) -> Image.Image:
        """The image at `position` fitted to a square of `size`, RGB. A large JPEG is decoded at reduced size."""
        if self.file is None:
            return fit_image(self.read(int(self.indices[position])), size, fit)
        file, name = self.file_of(position)
        return read_square(file, size, fit, name, self.options.background)

    def file_of(self, position: int) -> tuple[Path | str | BinaryIO, str | None]:
        """The file of the image at `position`, a path or a stream, and its name in error messages (None for a path)."""
        index = int(self.indices[position])
        file = self.file(index)
        return file, None if self.called is None or isinstance(file, (str, Path)) else self.called(index)

    def tensor(self, position: int, size: int, fit: str) -> torch.Tensor:
        """The image at `position` fitted to a square: (3, size, size) float32 in [0, 1]."""
        return to_tensor(self.square(position, size, fit))

    def tensors(self, size: int, fit: str) -> torch.Tensor:
        """All images: (n, 3, size, size) float32 in [0, 1]."""
        return torch.stack(list(self.stream(size, fit)))

    def stream(self, size: int, fit: str) -> Iterator[torch.Tensor]:
        """All images in order, as `tensor` gives them, decoded ahead by threads. The image cache is not filled."""
        return map(to_floats, self.squares(size, fit, keep=False))

    def squares(self, size: int, fit: str, keep: bool = True) -> Squares:
        """All images as squares, from the image cache if it has them; if not, `keep` says whether to add them."""
        identity = None if self.file is None else self.identity  # only images from files are cached
        return Squares(partial(self.square, size=size, fit=fit), len(self), size, fit, self.options, identity, keep)

    def shares_source(self, other: "LabelledImages") -> bool:
        """Whether both are parts of the same source, as carved splits are."""
        return self.read is other.read and self.file is other.file

    def select(self, positions: Sequence[int] | np.ndarray) -> "LabelledImages":
        """The images at `positions`, in that order."""
        positions = np.asarray(positions, dtype=np.int64)
        return replace(
            self,
            labels=self.labels[positions],
            keys=tuple(self.keys[p] for p in positions),
            indices=self.indices[positions],
            soft=None if self.soft is None else self.soft.select(positions),
            groups=None if self.groups is None else self.groups[positions],
            origins=None if self.origins is None else tuple(self.origins[p] for p in positions),
            identity=None,
        )

    def without(self, lost: Mapping[int, str]) -> "LabelledImages":
        """Leaves out the images at the positions in `lost`, and records them with their reasons in `unreadable`."""
        if not lost:
            return self
        noted = (
            Unreadable(self.keys[position], self.class_names[self.labels[position]], reason)
            for position, reason in lost.items()
        )
        left = self.select([position for position in range(len(self)) if position not in lost])
        return replace(left, unreadable=(*self.unreadable, *noted))


@dataclass(frozen=True)
class DatasetSplits:
    """`train` is the pool for few-shot draws, and shares no image with `validation` or `test`."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
