"""A dataset's images as squares of one size. Squares that are not in the image cache are decoded by threads."""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image
from PIL import __version__ as pillow

from distdiff.console.bar import with_progress
from distdiff.data.cache.image_cache import ImageCache, StoredImages
from distdiff.data.reading.decoding import READING
from distdiff.data.reading.options import ReadingOptions
from distdiff.data.reading.prefetch import prefetched


class Squares:
    """Images as squares: `squares[i]` is image i, (size, size, 3) uint8.

    Iteration decodes images ahead in several threads.
    """

    def __init__(
        self,
        read: Callable[[int], Image.Image],
        count: int,
        size: int,
        fit: str,
        options: ReadingOptions,
        identity: str | None,
        keep: bool = True,
    ) -> None:
        """`read(i)` gives the i-th of `count` images as an RGB square of `size`, already fitted by the method `fit`.

        If `identity` is known, the squares are looked up in the image cache that `options` gives. If they are not
        there, they are added unless `keep` is false. All ranks of a job must create the object together.
        """
        self._read, self._count, self._options = read, count, options
        self._stored = None if identity is None else self._open(identity, size, fit, keep)

    def __len__(self) -> int:
        return self._count

    @property
    def stored(self) -> bool:
        """Whether the squares are on disk. If they are, none of them has to be decoded."""
        return self._stored is not None

    def __getitem__(self, position: int) -> np.ndarray:
        stored = self._stored
        if stored is not None:
            try:
                return stored[position]
            except OSError:  # the cached file is gone, so the image is decoded
                self._stored = None
        return self.decode(position)

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.stored:
            return map(self.__getitem__, range(len(self)))
        return self._decoded()

    def decode(self, position: int) -> np.ndarray:
        return np.asarray(self._read(position), dtype=np.uint8).copy()

    def _decoded(self) -> Iterator[np.ndarray]:
        return prefetched(self.decode, range(len(self)), self._options.num_workers)

    def _open(self, identity: str, size: int, fit: str, keep: bool) -> StoredImages | None:
        if self._options.cache_dir is None:
            return None
        cache = ImageCache(self._options.cache_dir, self._options.image_cache_bytes)
        ingredients = {"data": identity, "reading": READING, "pillow": pillow, "size": size, "fit": fit}
        return cache.get(ingredients, len(self), (size, size, 3), self._counted if keep else None)

    def _counted(self) -> Iterator[np.ndarray]:
        return (
            square for square, _ in zip(self._decoded(), with_progress(range(len(self)), "images: decode"), strict=True)
        )
