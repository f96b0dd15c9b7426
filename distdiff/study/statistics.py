"""Paired comparison of methods over data seeds: Student t intervals, and what several comparisons at once require."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """The ends of an interval."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class PairedDifference:
    """The mean of the seed-by-seed differences and its Student t interval; the bounds are None for a single seed.

    `p_value` is that of the two-sided t test that the mean is zero; it is None for a single seed too.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None = None

    @property
    def interval(self) -> Interval | None:
        return None if self.low is None or self.high is None else Interval(self.low, self.high)

    @property
    def settled(self) -> bool:
        """Whether the interval excludes zero; False for a single seed."""
        return self.interval is not None and self.interval.excludes_zero


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], confidence: float = CONFIDENCE
) -> PairedDifference:
    """Compares `values` with `baseline` seed by seed: the differences are values minus baseline.

    >>> paired_difference([0.9, 0.8, 0.9], [0.8, 0.7, 0.8]).settled
    True
    """
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return PairedDifference(mean, None, None)
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    half = float(stats.t.ppf(0.5 + confidence / 2, count - 1)) * error
    return PairedDifference(mean, mean - half, mean + half, _p_value(mean, error, count - 1))


def _p_value(mean: float, error: float, freedom: int) -> float:
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / error, freedom))


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The 95 % Student t interval of a mean; None for a single value."""
    return paired_difference(values, [0.0] * len(values)).interval


def simultaneous(count: int) -> float:
    """The confidence of each of `count` intervals that are to hold together with 95 % (Bonferroni).

    >>> round(1 - simultaneous(5), 6)
    0.01
    """
    return 1 - (1 - CONFIDENCE) / max(1, count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Holm, 1979): a hypothesis is rejected at level α if its adjusted p-value is at most α.

    The smallest of m values is multiplied by m, the next one by m − 1, and so on; none is smaller than the one before.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
