"""What a benchmark has found: speeds and their ratios to a baseline, with intervals."""

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from distdiff.benchmark.measuring import RowSpeed
from distdiff.study.statistics import paired_difference

PACKAGES = ("torch", "diffusers", "transformers", "lightning")


@dataclass(frozen=True)
class Ratio:
    """The geometric mean of ratios, and its 95 % Student t interval; the bounds are None for a single ratio."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class BenchmarkResults:
    """The rows of a benchmark. `baseline` is the name of the row with which all rows are compared."""

    rows: Sequence[RowSpeed]
    baseline: str
    device: str
    resolution: int

    @property
    def base(self) -> RowSpeed:
        return next(row for row in self.rows if row.name == self.baseline)

    def times_baseline(self, row: RowSpeed) -> Ratio:
        """The seconds per image, as a multiple of the baseline's. Rates of the same turn are compared with each other."""
        base = [math.log(rate) for rate in self.base.rates]
        found = paired_difference(base, [math.log(rate) for rate in row.rates])
        bounds = (None if bound is None else math.exp(bound) for bound in (found.low, found.high))
        return Ratio(math.exp(found.mean), *bounds)

    def times_floor(self, row: RowSpeed) -> float | None:
        """The FLOPs per image, as a multiple of those of the baseline's evaluations of the denoising network.

        If the baseline is `none`, no image can be made with fewer evaluations. None if FLOPs were not counted.
        """
        floor, total = self.base.network_flops, row.total_flops
        return total / floor if floor and total else None

    def as_dict(self) -> dict[str, Any]:
        """The content of `benchmark.json`."""
        return {
            "device": self.device,
            "machine": machine(),
            "resolution": self.resolution,
            "baseline": self.baseline,
            "rows": [self._row(row) for row in self.rows],
        }

    def summary(self) -> dict[str, float]:
        """What a dashboard shows of each row."""
        return {f"benchmark/{row.name}/images_per_second": row.rate for row in self.rows}

    def _row(self, row: RowSpeed) -> dict[str, Any]:
        ratio = self.times_baseline(row)
        return {
            "name": row.name,
            "overrides": row.overrides,
            "batch_size": row.batch_size,
            "images": row.images,
            "images_per_second": row.rate,
            "runs": row.rates,
            "times_baseline": {"mean": ratio.mean, "low": ratio.low, "high": ratio.high},
            "peak_memory": row.peak_memory,
            "seconds_per_image": row.seconds,
            "flops_per_image": row.flops,
            "times_floor": self.times_floor(row),
            "network_calls": row.network_calls,
        }


def machine() -> dict[str, Any]:
    """The facts about this machine and its packages on which speed depends."""
    found = {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    return found | {name: version(name) for name in PACKAGES}
