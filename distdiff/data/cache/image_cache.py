"""Decoded images on disk, shared by runs, ranks and simultaneous jobs, within a stated size.

`<cache>/images/<fingerprint>/pixels.npy`, one plain array a folder. It is read by `preadv`, not mapped: the system shares its
pages between processes either way, but a mapped file that another machine removes, or a disk that fails, kills a process,
where a read that fails is an error, after which images are decoded again.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from distdiff.caching.stages import StageCache
from distdiff.console.progress import announce
from distdiff.errors import UserError, first_line
from distdiff.locking import held
from distdiff.ranks.world import world

STAGE, PIXELS = "images", "pixels.npy"
FORSAKEN = 3600  # seconds without a write, after which nobody is filling a folder any more
SPARED = 10**9  # bytes of disk that are left to others


class StoredImages:
    """uint8 images of one shape, (n, *shape), read one at a time from an .npy file."""

    def __init__(self, path: Path, count: int, shape: tuple[int, ...]) -> None:
        """Raises `OSError` or `ValueError` where the file is not there or another."""
        self.shape, self.size = shape, int(np.prod(shape))
        self._file = open(path, "rb")  # noqa: SIM115 (open as long as the object)
        version = np.lib.format.read_magic(self._file)
        header = np.lib.format.read_array_header_1_0(self._file)
        self._offset = self._file.tell()
        whole = os.fstat(self._file.fileno()).st_size == self._offset + count * self.size
        if version != (1, 0) or header != ((count, *shape), False, np.dtype(np.uint8)) or not whole:
            raise ValueError(f"{path} is no array of {count} images of {shape}")

    def __getitem__(self, index: int) -> np.ndarray:
        """Raises `OSError` where the file is gone or the disk fails."""
        image = np.empty(self.shape, dtype=np.uint8)
        if os.preadv(self._file.fileno(), [image.data], self._offset + index * self.size) != self.size:
            raise OSError("the file ends early")
        return image


class ImageCache:
    """At most `max_bytes` of images below `root`; the least recently used make room."""

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
        """The images that `ingredients` identify; `fill()` gives them in order where they are not there, if given.

        None where they are not kept: they are larger than the limit, or the disk has no room for them or fails.
        """
        if not 0 < count * int(np.prod(shape)) <= self.max_bytes:
            return None
        # All that may fail is done by the leading rank, inside: no rank may miss what the others are told.
        folder = world().once(lambda: self._filled(ingredients, count, shape, fill))
        if folder is None:
            return None
        try:
            return StoredImages(folder / PIXELS, count, shape)
        except (OSError, ValueError):  # gone since, or not seen from this host
            return None

    def _filled(
        self,
        ingredients: Mapping[str, Any],
        count: int,
        shape: tuple[int, ...],
        fill: Callable[[], Iterator[np.ndarray]] | None,
    ) -> Path | None:
        """The folder of these images, filled where it is not there, once more where it is damaged; None as for `get`."""
        size = count * int(np.prod(shape))

        def build(folder: Path) -> None:
            if fill is None:
                raise UserError("others just took their place")
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
            os.utime(folder)  # when it was last used
        return folder

    def _make_room(self, aside: Path, size: int) -> Path:
        """A file of `size` in the folder `aside`, after others have been removed for it."""
        with held(self.folder / "room.lock"):
            self._sweep()
            kept, going, freed = self._kept(), [], 0
            excess = sum(taken for _, taken, _ in kept) + size - self.max_bytes
            for _, taken, folder in sorted(kept):
                if freed < excess and not folder.name.startswith("."):
                    going.append(folder)
                    freed += taken
            if freed < excess:
                raise OSError("other jobs are just filling it")
            if shutil.disk_usage(self.folder).free + freed < size + SPARED:
                raise OSError(f"{size / 1e9:.1f} GB do not fit on the disk")
            for folder in going:  # not before it is sure that this makes room
                _remove(folder)
            path = aside / PIXELS
            with open(path, "wb") as file:
                file.truncate(size)  # so that others count it
        return path

    def _kept(self) -> list[tuple[int, int, Path]]:
        """(when last used, bytes, folder) of all that there are, those that are being filled too."""
        kept = []
        for path in self.folder.glob(f"*/{PIXELS}"):
            with suppress(OSError):  # one that just failed
                kept.append((path.parent.stat().st_mtime_ns, path.stat().st_size, path.parent))
        return kept

    def _sweep(self) -> None:
        """Removes what a process left that was killed while it filled or removed a folder."""
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
        os.fsync(file.fileno())  # the file has its whole size from the start: after a crash zeros would pass for black


def _remove(folder: Path) -> None:
    """Out of sight at once; who has its file open may go on reading."""
    gone = folder.with_name(f".{folder.name}-removed-{os.getpid()}")
    with suppress(OSError):
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
