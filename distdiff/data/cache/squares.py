"""A set's images as squares of one size: from the image cache where they are kept, else decoded by threads."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import __version__ as pillow

from distdiff.console.bar import with_progress
from distdiff.data.cache.image_cache import ImageCache, StoredImages
from distdiff.data.reading.decoding import READING
from distdiff.data.reading.prefetch import prefetched

if TYPE_CHECKING:
    from distdiff.data.images import LabelledImages


class Squares:
    """`squares[i]` is the i-th of `images` as (size, size, 3) uint8; iterated, they are made ahead by several threads."""

    def __init__(self, images: "LabelledImages", size: int, fit: str, keep: bool = True) -> None:
        """Images that are files of a known identity are kept in the cache of `images.options`, unless `keep` is false.

        Of several ranks all have to come here together.
        """
        self.images, self.size, self.fit = images, size, fit
        self._stored = self._open(keep)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def stored(self) -> bool:
        """Whether they are on disk, so that to get one takes no work."""
        return self._stored is not None

    def __getitem__(self, position: int) -> np.ndarray:
        stored = self._stored
        if stored is not None:
            try:
                return stored[position]
            except OSError:  # the cache is gone: that ends nothing
                self._stored = None
        return self.decode(position)

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.stored:
            return map(self.__getitem__, range(len(self)))
        return self._decoded()

    def decode(self, position: int) -> np.ndarray:
        return np.asarray(self.images.square(position, self.size, self.fit), dtype=np.uint8).copy()

    def _decoded(self) -> Iterator[np.ndarray]:
        return prefetched(self.decode, range(len(self)), self.images.options.num_workers)

    def _open(self, keep: bool) -> StoredImages | None:
        images = self.images
        if images.file is None or images.identity is None or images.options.cache_dir is None:
            return None
        cache = ImageCache(images.options.cache_dir, images.options.image_cache_bytes)
        ingredients = {
            "data": images.identity,
            "reading": READING,
            "pillow": pillow,
            "size": self.size,
            "fit": self.fit,
        }
        shape = (self.size, self.size, 3)
        return cache.get(ingredients, len(images), shape, self._counted if keep else None)

    def _counted(self) -> Iterator[np.ndarray]:
        return (
            square for square, _ in zip(self._decoded(), with_progress(range(len(self)), "images: decode"), strict=True)
        )


def to_floats(square: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(square).permute(2, 0, 1).float().div_(255)
