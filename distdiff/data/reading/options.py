"""The keys of a dataset that concern only how its images are read."""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from distdiff.caching.fingerprint import plain
from distdiff.data.reading.background import colour
from distdiff.data.reading.decoding import WHITE, Colour
from distdiff.data.reading.value_range import ValueRange


@dataclass(frozen=True)
class ReadingOptions:
    """Options for reading images.

    If `num_workers` is None, a fair share of the cores is used. If `cache_dir` is None, nothing is kept across runs.
    """

    background: Colour = WHITE
    value_range: ValueRange = field(default_factory=ValueRange)
    num_workers: int | None = None
    cache_dir: Path | None = None
    image_cache_bytes: int = 0

    @classmethod
    def of(cls, dataset: DictConfig) -> "ReadingOptions":
        """The options that are given by the keys of the configuration `dataset`."""
        return cls(
            background=colour(plain(dataset.background)),
            value_range=ValueRange.of(plain(dataset.value_range)),
            num_workers=dataset.num_workers,
            cache_dir=Path(dataset.cache_dir),
            image_cache_bytes=int(dataset.image_cache_gb * 1e9),
        )
