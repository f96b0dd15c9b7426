"""Paired comparison of methods over data seeds: Student t intervals, and what several comparisons at once require."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
ROUNDING = 1e-12  # differences of accuracies that are closer than this are the same


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
    """The mean of the seed-by-seed differences and its Student t interval.

    `p_value` is that of the two-sided t test that the mean is zero. It is None, as the bounds are, for a single seed, and
    if all `count` seeds have the same difference: accuracies on few images may agree by chance, and a t test would then be
    certain.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None = None
    count: int = 1

    @property
    def lacks_spread(self) -> bool:
        """Whether several seeds have the same difference, so that there is no interval."""
        return self.count > 1 and self.low is None

    @property
    def interval(self) -> Interval | None:
        return None if self.low is None or self.high is None else Interval(self.low, self.high)

    @property
    def settled(self) -> bool:
        """Whether the interval excludes zero; False without an interval."""
        return self.interval is not None and self.interval.excludes_zero


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], confidence: float = CONFIDENCE
) -> PairedDifference:
    """Compares `values` with `baseline` seed by seed: the differences are values minus baseline.

    >>> paired_difference([0.9, 0.8, 0.9], [0.8, 0.69, 0.81]).settled
    True
    """
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return PairedDifference(mean, None, None)
    if np.ptp(differences) < ROUNDING:
        return PairedDifference(mean, None, None, count=count)
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    interval = _t_interval(mean, error, count - 1, confidence)
    p_value = float(2 * stats.t.sf(abs(mean) / error, count - 1))
    return PairedDifference(mean, interval.low, interval.high, p_value, count)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The 95 % Student t interval of a mean; None for a single value."""
    count = len(values)
    if count < 2:
        return None
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return _t_interval(float(np.mean(values)), error, count - 1, CONFIDENCE)


def _t_interval(mean: float, error: float, freedom: int, confidence: float) -> Interval:
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error
    return Interval(mean - half, mean + half)


def simultaneous(count: int) -> float:
    """The confidence of each of `count` intervals that are to hold together with 95 % (Bonferroni).

    >>> round(1 - simultaneous(5), 6)
    0.01
    """
    return 1 - (1 - CONFIDENCE) / max(1, count)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values (Holm, 1979): a hypothesis is rejected at level α if its adjusted p-value is at most α.

    The smallest of m values is multiplied by m, the next one by m − 1, and so on; none is smaller than the one before.
    A value that is not known (None) counts among the m, as the largest, and stays unknown.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    >>> holm([0.01, None])
    [0.02, None]
    """
    adjusted, highest = [None] * len(p_values), 0.0
    known = [index for index, value in enumerate(p_values) if value is not None]
    for rank, index in enumerate(sorted(known, key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
