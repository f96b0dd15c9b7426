"""A labelled set of images, read on demand, and its three splits."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from distdiff.data.fit import fit_image
from distdiff.data.reading import UnreadableImage


@dataclass(frozen=True)
class Unreadable:
    """An image that was left out."""

    key: str
    class_name: str
    reason: str


@dataclass(frozen=True)
class LabelledImages:
    """Images with a label each; `read(i)` decodes image i of the underlying source as RGB.

    `keys[i]` names the image inside its class and is unique there; `indices` selects and orders the source's images.
    """

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray  # (n,) int64
    keys: tuple[str, ...]
    read: Callable[[int], Image.Image]
    indices: np.ndarray  # (n,) int64
    unreadable: tuple[Unreadable, ...] = ()  # what `without` left out
    file: Callable[[int], Path | str | BinaryIO] | None = None  # what `read` decodes, where that is a file
    groups: np.ndarray | None = None  # (n,) int64: those of one number, all of one class, are never in two splits

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, position: int) -> Image.Image:
        """The image at `position`, RGB, in its own size."""
        return self.read(int(self.indices[position]))

    def tensor(self, position: int, size: int, fit: str) -> torch.Tensor:
        """The image at `position` fitted to a square: (3, size, size) float32 in [0, 1]."""
        return to_tensor(fit_image(self.image(position), size, fit))

    def tensors(self, size: int, fit: str) -> torch.Tensor:
        """All images: (n, 3, size, size) float32 in [0, 1]."""
        return torch.stack([self.tensor(position, size, fit) for position in range(len(self))])

    def select(self, positions: Sequence[int] | np.ndarray) -> "LabelledImages":
        """The images at `positions`, in that order."""
        positions = np.asarray(positions, dtype=np.int64)
        return replace(
            self,
            labels=self.labels[positions],
            keys=tuple(self.keys[p] for p in positions),
            indices=self.indices[positions],
            groups=None if self.groups is None else self.groups[positions],
        )

    def examine(self) -> tuple[dict[int, str], str]:
        """Why images cannot be read, by position, and the fingerprint of all others.

        That is a hash of pixels, labels, keys and class names: equal exactly where the content is.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        lost = {}
        for position in range(len(self)):
            try:
                image = self.image(position)
            except UnreadableImage as error:
                lost[position] = error.reason
                continue
            digest.update(f"{self.keys[position]}|{self.labels[position]}|{image.size}|".encode())
            digest.update(image.tobytes())
        return lost, digest.hexdigest()[:16]

    def without(self, lost: Mapping[int, str]) -> "LabelledImages":
        """All but those at the positions `lost`, which `unreadable` notes with their reasons."""
        if not lost:
            return self
        noted = (
            Unreadable(self.keys[position], self.class_names[self.labels[position]], reason)
            for position, reason in lost.items()
        )
        left = self.select([position for position in range(len(self)) if position not in lost])
        return replace(left, unreadable=(*self.unreadable, *noted))

    def fingerprint(self) -> str:
        """A hash of the content of all that can be read."""
        return self.examine()[1]


@dataclass(frozen=True)
class DatasetSplits:
    """`train` is the pool that few-shot draws come from; nothing of `validation` or `test` is in it."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def draw_few_shot(
    pool: LabelledImages, per_class: int | None, seed: int, passed_over: Sequence[Unreadable] = ()
) -> LabelledImages:
    """Draws `per_class` images of every class without replacement (all of a smaller class), by `seed` alone.

    The next of the draw takes the place of one that is `passed_over`.
    """
    if per_class is None:
        return pool
    chosen, without = [], {(image.class_name, image.key) for image in passed_over}
    for label, name in enumerate(pool.class_names):
        positions = np.flatnonzero(pool.labels == label)
        generator = np.random.default_rng([seed, label])
        order = [p for p in generator.permutation(positions) if (name, pool.keys[p]) not in without]
        chosen.extend(sorted(order[:per_class]))
    return pool.select(chosen)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """RGB PIL image -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.asarray(image, dtype=np.uint8).copy()).permute(2, 0, 1).float().div_(255)


def to_image(pixels: torch.Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] -> RGB PIL image, rounded to the nearest of 255 levels."""
    levels = pixels.detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())
