"""Logs the progress of an expansion to the run's dashboard."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import lightning as L
import psutil
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from PIL import Image

from distdiff.data.pixels import to_image
from distdiff.errors import RankLost
from distdiff.grids import grid
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized
from distdiff.tracking.loggers import log_image

EVERY, GRID_EVERY = 15.0, 120.0  # seconds
GRID_IMAGES, GRID_COLUMNS, GRID_SIDE = 16, 8, 128
ENERGIES = ("energy_before", "energy_after")


class TrackExpansion(Callback):
    """Logs an entry after the first batch, then every `every` seconds, and at the end. The step is the number of images made.

    An entry has the numbers of `images` and `failures` so far, `memory_gb` (see the function of this name) and, for the
    time since the last entry, `images_per_second` and the medians of `energy_before` and `energy_after`. Every
    `grid_every` seconds an entry also has `samples`, a grid of the latest images. With several ranks only the leading
    rank logs: `made()` counts the images of all ranks, but energies, samples and memory are those of the leading rank.
    """

    def __init__(
        self,
        logger: Logger,
        made: Callable[[], int],
        failures: Callable[[], int] = lambda: 0,
        every: float = EVERY,
        grid_every: float = GRID_EVERY,
    ) -> None:
        self.logger = logger
        self.made = made
        self.failures = failures
        self.every = every
        self.grid_every = grid_every
        self._fresh = 0  # this rank's images since the last entry
        self._logged_images = 0
        self._logged_at = 0.0
        self._grid_at = -math.inf
        self._window: dict[str, list[float]] = {name: [] for name in ENERGIES}
        self._latest: list[Image.Image] = []
        self._classes: list[str] = []

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._logged_at = time.perf_counter()

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Synthesized,
        batch: Sequence[WorkItem],
        *_: Any,
    ) -> None:
        first = self._logged_images == 0
        self._fresh += len(outputs.images)
        for name, values in self._window.items():
            values += [value for value in outputs.columns.get(name, ()) if math.isfinite(value)]
        now = time.perf_counter()
        if now - self._grid_at >= self.grid_every:
            self._latest = [thumbnail(pixels) for pixels in outputs.images[:GRID_IMAGES]]
            self._classes = [item.class_name for item in batch[: len(self._latest)]]
        if first or now - self._logged_at >= self.every:
            self._log(pl_module.device)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log(pl_module.device)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        with contextlib.suppress(RankLost):  # the job itself reports a lost rank
            self._log(pl_module.device)

    def _log(self, device: torch.device) -> None:
        if not self._fresh:
            return
        now, images = time.perf_counter(), self.made()
        values: dict[str, float] = {
            "images": images,
            "images_per_second": (images - self._logged_images) / (now - self._logged_at),
            "failures": self.failures(),
            "memory_gb": memory_gb(device),
        }
        values |= {name: median(window) for name, window in self._window.items() if window}
        self.logger.log_metrics(values, images)
        if self._latest:
            sheet = grid(self._latest, min(GRID_COLUMNS, len(self._latest)))
            log_image(self.logger, "samples", sheet, images, f"row by row: {', '.join(self._classes)}")
            self._grid_at = now
        self.logger.save()
        self._fresh, self._logged_images, self._logged_at, self._latest = 0, images, now, []
        for window in self._window.values():
            window.clear()


def thumbnail(pixels: torch.Tensor) -> Image.Image:
    """Converts pixels (3, H, W) in [0, 1] to an image whose sides have at most `GRID_SIDE` pixels."""
    image = to_image(pixels)
    image.thumbnail((GRID_SIDE, GRID_SIDE))
    return image


def memory_gb(device: torch.device) -> float:
    """Memory in 10^9 bytes: on CUDA the peak taken by tensors so far, elsewhere the memory that this process uses now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return psutil.Process().memory_info().rss / 1e9
