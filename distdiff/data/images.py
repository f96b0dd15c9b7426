"""A labelled set of images that are read on demand, and the three splits of a dataset."""

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

    `keys[i]` is the name of image i, which is unique within the image's class. The source is all images that `read` or
    `file` can give. `indices[i]` is the position of image i in the source.
    """

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray  # (n,) int64
    keys: tuple[str, ...]
    read: Callable[[int], Image.Image] | None  # gives the source's image i as RGB; None if the images are files
    indices: np.ndarray  # (n,) int64
    unreadable: tuple[Unreadable, ...] = ()  # the images that `without` left out
    file: Callable[[int], Path | str | BinaryIO] | None = None  # gives the path or stream of the source's image i
    soft: SoftLabels | None = None  # soft labels, if any; `labels` then holds the classes with the largest weight
    groups: np.ndarray | None = None  # (n,) int64; images with the same number always stay in the same split
    origins: tuple[tuple[int, ...], ...] | None = None  # for each image, the groups of all images that it was made from
    sources: tuple[tuple[str, ...], ...] | None = None  # for each image, the real images it was made from, as class/key
    called: Callable[[int], str] | None = None  # the name of image i in error messages, if the image is a stream
    listing: str | None = None  # the source's name in the cache of facts about image files
    options: ReadingOptions = field(default_factory=ReadingOptions)
    identity: str | None = None  # a hash of the content of these images, if known

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, position: int) -> Image.Image:
        """The image at `position` as RGB, in its own size."""
        if self.file is None:
            return self.read(int(self.indices[position]))
        return read_image(*self.file_of(position), self.options.background, self.options.value_range)

    def square(self, position: int, size: int, fit: str) -> Image.Image:
        """The image at `position` as an RGB square of `size` pixels, fitted by the method `fit`.

        A large JPEG is decoded at reduced size.
        """
        if self.file is None:
            return fit_image(self.read(int(self.indices[position])), size, fit)
        file, name = self.file_of(position)
        return read_square(file, size, fit, name, self.options.background, self.options.value_range)

    def file_of(self, position: int) -> tuple[Path | str | BinaryIO, str | None]:
        """The path or stream of the image at `position`, and the stream's name in error messages (None for a path)."""
        index = int(self.indices[position])
        file = self.file(index)
        return file, None if self.called is None or isinstance(file, (str, Path)) else self.called(index)

    def tensor(self, position: int, size: int, fit: str) -> torch.Tensor:
        """The image at `position` fitted to a square: (3, size, size) float32 in [0, 1]."""
        return to_tensor(self.square(position, size, fit))

    def tensors(self, size: int, fit: str) -> torch.Tensor:
        """All images, fitted to squares: (n, 3, size, size) float32 in [0, 1]."""
        return torch.stack(list(self.stream(size, fit)))

    def stream(self, size: int, fit: str) -> Iterator[torch.Tensor]:
        """All images in order, each as `tensor` gives it, decoded ahead by threads.

        The images are not added to the image cache.
        """
        return map(to_floats, self.squares(size, fit, keep=False))

    def squares(self, size: int, fit: str, keep: bool = True) -> Squares:
        """All images as squares, read from the image cache if they are there.

        If they are not, `keep` says whether they are added to the cache.
        """
        identity = None if self.file is None else self.identity  # only images from files are cached
        return Squares(partial(self.square, size=size, fit=fit), len(self), size, fit, self.options, identity, keep)

    @property
    def names(self) -> list[str]:
        """Each image as class/key, as an expanded image names its sources."""
        return [f"{self.class_names[label]}/{key}" for label, key in zip(self.labels, self.keys, strict=True)]

    def shares_source(self, other: "LabelledImages") -> bool:
        """Whether `self` and `other` come from the same source, as two splits do if one was carved from the other."""
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
            sources=None if self.sources is None else tuple(self.sources[p] for p in positions),
            identity=None,
        )

    def without(self, lost: Mapping[int, str]) -> "LabelledImages":
        """Leaves out the images at the positions in `lost`, and records each one with its reason in `unreadable`."""
        if not lost:
            return self
        noted = (
            Unreadable(self.keys[position], self.class_names[self.labels[position]], reason)
            for position, reason in lost.items()
        )
        left = self.select([position for position in range(len(self)) if position not in lost])
        return replace(left, unreadable=(*self.unreadable, *noted))


def joined(parts: Sequence[LabelledImages]) -> LabelledImages:
    """All images of `parts`, which come from the same source (`LabelledImages.shares_source`), one part after another."""
    first = parts[0]
    return replace(
        first,
        labels=np.concatenate([part.labels for part in parts]),
        keys=tuple(key for part in parts for key in part.keys),
        indices=np.concatenate([part.indices for part in parts]),
        soft=None if first.soft is None else SoftLabels.joined([part.soft for part in parts]),
        groups=None if first.groups is None else np.concatenate([part.groups for part in parts]),
        origins=None if first.origins is None else tuple(origin for part in parts for origin in part.origins),
        sources=None if first.sources is None else tuple(source for part in parts for source in part.sources),
        identity=None,
    )


@dataclass(frozen=True)
class Leak:
    """How many of the `total` images of the split `split` are also in the split `other`: the same file, or the same pixels.

    `pairs` names the first of each distinct image, as (image of `other`, image of `split`). `left_out` is the number of
    images of `other` that are left out for this reason.
    """

    split: str
    other: str
    count: int
    total: int
    pairs: tuple[tuple[str, str], ...] = ()
    left_out: int = 0


@dataclass(frozen=True)
class DatasetSplits:
    """The three splits of a dataset. `train` is the pool for few-shot draws.

    No split was made to share images with another, but a dataset may hold an image twice. `leaks` is None unless such
    images were looked for and left out.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    leaks: tuple[Leak, ...] | None = None
