"""Paired comparison of methods over study seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """The mean of the seed-by-seed differences and its 95 % Student t interval; the bounds are None for a single seed."""

    mean: float
    low: float | None
    high: float | None

    @property
    def settled(self) -> bool:
        """Whether the interval excludes zero; False for a single seed."""
        return self.low is not None and (self.low > 0 or self.high < 0)


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> PairedDifference:
    """Compares `values` with `baseline` seed by seed: the differences are values minus baseline.

    >>> paired_difference([0.9, 0.8, 0.9], [0.8, 0.7, 0.8]).settled
    True
    """
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    mean = float(differences.mean())
    if len(differences) < 2:
        return PairedDifference(mean, None, None)
    half = (
        stats.t.ppf(0.5 + CONFIDENCE / 2, len(differences) - 1) * differences.std(ddof=1) / math.sqrt(len(differences))
    )
    return PairedDifference(mean, mean - float(half), mean + float(half))
