"""The autoencoder's posteriors of many images, stored on disk or computed on demand."""

import itertools
from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from distdiff.generator.latent_diffusion import LatentDiffusion, Posterior

FILE = "latents.npy"


class Latents(Protocol):
    """The posteriors of a set of images."""

    def select(self, positions: torch.Tensor) -> Posterior:
        """The posterior of the images at `positions`, (B, C, h, w) on the CPU."""


class StoredLatents:
    """Posteriors whose means and standard deviations are in one NumPy file, (n, 2, C, h, w).

    `select` reads only the posteriors of the selected images into memory.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        with open(self.path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            (count, *self.shape), _, self.dtype = read_header[version](file)
            self.start = file.tell()
        self.count = count

    def __len__(self) -> int:
        return self.count

    @classmethod
    def write(cls, folder: Path, posteriors: Iterable[Posterior], count: int) -> None:
        """Writes the posteriors of `count` images, given batch by batch. Only one batch is in memory at a time."""
        batches = iter(posteriors)
        first = next(batches)
        sample = torch.stack([first.mean[0], first.std[0]]).numpy()
        header = {"descr": sample.dtype.str, "fortran_order": False, "shape": (count, *sample.shape)}
        with open(folder / FILE, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for posterior in itertools.chain([first], batches):
                file.write(torch.stack([posterior.mean, posterior.std], dim=1).numpy().tobytes())

    def select(self, positions: torch.Tensor) -> Posterior:
        rows = np.empty((len(positions), *self.shape), self.dtype)
        size = prod(self.shape) * self.dtype.itemsize
        with open(self.path, "rb") as file:
            for row, position in zip(rows, positions.tolist(), strict=True):
                file.seek(self.start + position * size)
                file.readinto(row)
        mean, std = torch.from_numpy(rows).unbind(1)
        return Posterior(mean, std)


class EncodedLatents:
    """Encodes an image when it is first selected. This saves time if only a few of many images are needed."""

    def __init__(self, generator: LatentDiffusion, pixels: Callable[[int], torch.Tensor]) -> None:
        """`pixels(i)` is image i, (3, H, W) in [0, 1]."""
        self.generator = generator
        self.pixels = pixels
        self._known: dict[int, Posterior] = {}

    def select(self, positions: torch.Tensor) -> Posterior:
        wanted = list(dict.fromkeys(positions.tolist()))
        missing = [position for position in wanted if position not in self._known]
        if missing:
            made = self.generator.encode_all(map(self.pixels, missing))
            self._known |= {position: made.select(slice(row, row + 1)) for row, position in enumerate(missing)}
        found = [self._known[position] for position in positions.tolist()]
        return Posterior(torch.cat([one.mean for one in found]), torch.cat([one.std for one in found]))
