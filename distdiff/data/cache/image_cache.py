"""Decoded images on disk, shared by runs, ranks and simultaneous jobs, up to a given total size.

Each set of images is one plain array, `<cache>/images/<fingerprint>/pixels.npy`. The array is read at positions
(`preadv`) and is not memory-mapped. If another machine removes a mapped file, or the disk fails, a process that reads
the file is killed. A failed read only raises an error, and the images are then decoded again. As with a mapped file,
processes share the array's pages in memory.
"""

import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from distdiff.caching.positions import PositionedFile
from distdiff.caching.stages import StageCache
from distdiff.console.progress import announce
from distdiff.errors import UserError, first_line
from distdiff.locking import held
from distdiff.ranks.world import world

STAGE, PIXELS = "images", "pixels.npy"
FORSAKEN = 3600  # seconds without a write after which a folder counts as abandoned
SPARED = 10**9  # bytes of disk space that are left free


class StoredImages:
    """uint8 images of one shape, (n, *shape), read one at a time from an .npy file."""

    def __init__(self, path: Path, count: int, shape: tuple[int, ...]) -> None:
        """Raises `OSError` if the file is missing, and `ValueError` if it does not hold `count` images of `shape`."""
        self.shape, self.size = shape, int(np.prod(shape))
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (the file is open as long as the object exists)
        weakref.finalize(self, self._file.close)
        self._positioned = PositionedFile(self._file)
        version = np.lib.format.read_magic(self._file)
        header = np.lib.format.read_array_header_1_0(self._file)
        self._offset = self._file.tell()
        whole = os.fstat(self._file.fileno()).st_size == self._offset + count * self.size
        if version != (1, 0) or header != ((count, *shape), False, np.dtype(np.uint8)) or not whole:
            raise ValueError(f"{path} is no array of {count} images of {shape}")

    def __getitem__(self, index: int) -> np.ndarray:
        """Image `index`, uint8 of the shape `shape`. Raises `OSError` if the file is gone or the disk fails."""
        image = np.empty(self.shape, dtype=np.uint8)
        if self._positioned.read_into(image.data.cast("B"), self._offset + index * self.size) != self.size:
            raise OSError("the file ends early")
        return image


class ImageCache:
    """Keeps at most `max_bytes` of images below the folder `root`. The least recently used images are removed first."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = root / STAGE, max_bytes
        self.stages = StageCache(root)

    def get(
        self,
        ingredients: Mapping[str, Any],
        count: int,
        shape: tuple[int, ...],
        fill: Callable[[], Iterator[np.ndarray]] | None,
    ) -> StoredImages | None:
        """The `count` images of `shape` that `ingredients` identify.

        If they are not stored yet, they are taken from `fill()` and stored. Returns None if the images are not stored
        and `fill` is None, if they are larger than `max_bytes`, or if the disk is full or fails.
        """
        if not 0 < count * int(np.prod(shape)) <= self.max_bytes:
            return None
        # Finding and filling the folder may fail. Both happen inside `once`, on the leading rank, for all ranks.
        folder = world().once(lambda: self._filled(ingredients, count, shape, fill))
        if folder is None:
            return None
        try:
            return StoredImages(folder / PIXELS, count, shape)
        except (OSError, ValueError):  # the file was removed since, or is not visible from this host
            return None

    def _filled(
        self,
        ingredients: Mapping[str, Any],
        count: int,
        shape: tuple[int, ...],
        fill: Callable[[], Iterator[np.ndarray]] | None,
    ) -> Path | None:
        """The folder with the images, which is filled if it is missing or damaged.

        Returns None in the cases that `get` lists.
        """
        size = count * int(np.prod(shape))

        def build(folder: Path) -> None:
            if fill is None:
                raise UserError("other jobs have just taken the space")
            try:
                _write(self._make_room(folder, size), fill(), (count, *shape))
            except OSError as error:
                raise UserError(error.strerror or first_line(error)) from None

        try:
            if fill is None and not self.stages.has(STAGE, ingredients):
                return None
            folder = self.stages.get(STAGE, ingredients, build)
            try:
                StoredImages(folder / PIXELS, count, shape)
            except (OSError, ValueError):
                _remove(folder)
                folder = self.stages.get(STAGE, ingredients, build)
        except (UserError, OSError) as error:
            announce(f"decoded images are not kept in {self.folder}: {first_line(error)}")
            return None
        with suppress(OSError):
            os.utime(folder)  # records when the folder was last used
        return folder

    def _make_room(self, aside: Path, size: int) -> Path:
        """Creates a file of `size` bytes in the folder `aside`, after removing older images to make room."""
        with held(self.folder / "room.lock"):
            self._sweep()
            kept, going, freed = self._kept(), [], 0
            excess = sum(taken for _, taken, _ in kept) + size - self.max_bytes
            for _, taken, folder in sorted(kept):
                if freed < excess and not folder.name.startswith("."):
                    going.append(folder)
                    freed += taken
            if freed < excess:
                raise OSError("other jobs are filling it")
            if shutil.disk_usage(self.folder).free + freed < size + SPARED:
                raise OSError(f"{size / 1e9:.1f} GB do not fit on the disk")
            for folder in going:  # removed only now, when it is known that enough space becomes free
                _remove(folder)
            path = aside / PIXELS
            with open(path, "wb") as file:
                file.truncate(size)  # so that other processes count the full size of the file
        return path

    def _kept(self) -> list[tuple[int, int, Path]]:
        """(last use, bytes, folder) of every folder, including folders that are being filled."""
        kept = []
        for path in self.folder.glob(f"*/{PIXELS}"):
            with suppress(OSError):  # the folder may just have been removed
                kept.append((path.parent.stat().st_mtime_ns, path.stat().st_size, path.parent))
        return kept

    def _sweep(self) -> None:
        """Removes the folders left by processes that were killed while filling or removing a folder."""
        for folder in self.folder.glob(".*/"):
            with suppress(OSError):
                newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
                if time.time() - newest > FORSAKEN:
                    shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, images: Iterator[np.ndarray], shape: tuple[int, ...]) -> None:
    with open(path, "r+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for image in images:
            file.write(image.tobytes())
        file.flush()
        os.fsync(file.fileno())  # otherwise, zeros that a crash left in the file of full size would pass for black


def _remove(folder: Path) -> None:
    """Renames the folder, then removes it. Processes that are reading the file in it can go on."""
    gone = folder.with_name(f".{folder.name}-removed-{os.getpid()}")
    with suppress(OSError):
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
