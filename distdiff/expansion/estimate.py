"""Estimates the time and disk space of a whole expansion from a few of its images."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from PIL import Image

from distdiff.console.progress import console
from distdiff.data.pixels import to_image
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized
from distdiff.store.encoding import ImageEncoding
from distdiff.wording import duration

MINUTE = 60.0  # seconds
ENCODED = 8  # at most this many images of a batch are encoded to measure their size


@dataclass(frozen=True)
class Estimate:
    """The cost of making `images` images; `images_per_second` is the rate of all devices together."""

    images: int
    images_per_second: float
    bytes_per_image: float

    @property
    def seconds(self) -> float:
        return self.images / self.images_per_second

    @property
    def bytes(self) -> float:
        return self.images * self.bytes_per_image

    def as_dict(self) -> dict[str, float]:
        return asdict(self) | {"hours": self.seconds / 3600, "bytes": round(self.bytes)}

    def __str__(self) -> str:
        """
        >>> print(Estimate(images=100_000, images_per_second=2.5, bytes_per_image=400_000))
        100,000 images: about 11.1 hours at 2.5 images/s, 40 GB on disk
        """
        rate = f"{self.images_per_second:.3g} images/s"
        return f"{self.images:,} images: about {duration(self.seconds)} at {rate}, {size(self.bytes)} on disk"

    def within(self, limit: str) -> str:
        """The estimate as text, with the upper bound `limit` instead of a time, for use before the rate is well known.

        >>> Estimate(images=100, images_per_second=4, bytes_per_image=1000).within("a minute")
        '100 images: less than a minute, 100 kB on disk'
        """
        return f"{self.images:,} images: less than {limit}, {size(self.bytes)} on disk"


class SayEstimate(Callback):
    """Prints one `Estimate` early in a job, unless the job has only one batch.

    `images` is the number of images that all `ranks` make together. The estimate is printed after the second batch,
    because the first batch includes warming up. If the first batch took more than `patience` seconds, the estimate is
    printed after the first batch already. If the whole job would take at most a minute even at half of the first
    batch's rate, "less than a minute" is printed after the first batch, without a rate.
    """

    def __init__(self, images: int, encoding: ImageEncoding, ranks: int = 1, patience: float = 30.0) -> None:
        self.images = images
        self.encoding = encoding
        self.ranks = ranks
        self.patience = patience
        self._said = False
        self._started = 0.0

    def on_predict_batch_start(self, *_: Any) -> None:
        self._started = time.perf_counter()

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Synthesized,
        batch: Sequence[WorkItem],
        batch_idx: int,
        *_: Any,
    ) -> None:
        seconds = time.perf_counter() - self._started
        made = [place for place in range(len(batch)) if place not in outputs.failures]
        together = len(batch) * self.ranks
        if self._said or not made or (batch_idx == 0 and together >= self.images):
            return
        short = batch_idx == 0 and 2 * self.images / together * seconds <= MINUTE
        if batch_idx == 0 and not short and seconds <= self.patience:
            return
        self._said = True
        sample = [to_image(pixels) for pixels in outputs.images[made[:ENCODED]]]
        estimate = Estimate(self.images, together / seconds, mean_size(sample, self.encoding))
        console.print(estimate.within("a minute") if short else str(estimate))


def mean_size(images: Sequence[Image.Image], encoding: ImageEncoding) -> float:
    """The mean number of bytes that an image takes on disk."""
    return fmean(len(encoding.encode(image)) for image in images)


def size(count: float) -> str:
    """
    >>> size(900), size(2_500_000), size(4e13)
    ('900 bytes', '2.5 MB', '40 TB')
    """
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return f"{count:.0f} bytes"
