"""Inverted images, that is, the noise from which the generator draws each: stored in a file, or computed when needed."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

FILE = "inversions.npy"


class Inversions(Protocol):
    """The inversions of a set of images."""

    def select(self, positions: torch.Tensor) -> torch.Tensor:
        """The inversions of the images at `positions`, (B, C, h, w) in unit variance, on the CPU."""


class StoredInversions:
    """Inversions in one NumPy file, (n, C, h, w); `select` reads only those that are selected into memory."""

    def __init__(self, folder: Path) -> None:
        self._all = np.load(folder / FILE, mmap_mode="r", allow_pickle=False)

    @classmethod
    def write(cls, folder: Path, batches: Iterable[torch.Tensor], count: int) -> None:
        """Writes the inversions of `count` images, given batch by batch. Only one batch is in memory at a time."""
        file, start = None, 0
        for batch in batches:
            if file is None:
                shape, dtype = (count, *batch.shape[1:]), batch.numpy().dtype
                file = np.lib.format.open_memmap(folder / FILE, mode="w+", dtype=dtype, shape=shape)
            file[start : start + len(batch)] = batch.numpy()
            start += len(batch)
        file.flush()

    def select(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._all[positions.numpy()])


class ComputedInversions:
    """Inverts an image when it is first selected. This saves time if only a few of many images are needed."""

    def __init__(self, invert: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """`invert(positions)` gives the inversions of the images at `positions`."""
        self.invert = invert
        self._known: dict[int, torch.Tensor] = {}

    def select(self, positions: torch.Tensor) -> torch.Tensor:
        missing = [position for position in dict.fromkeys(positions.tolist()) if position not in self._known]
        if missing:
            self._known |= dict(zip(missing, self.invert(torch.tensor(missing)), strict=True))
        return torch.stack([self._known[position] for position in positions.tolist()])
