"""Intervals of metrics: of shares of images by their distribution, and of all other metrics by the bootstrap."""

import numpy as np
from scipy.stats import binomtest

LEVEL = 0.95
SEED = 0
ROUNDING, TINY = 1e-7, 1e-12  # relative and absolute: ends that differ by less differ by rounding


def resamples(labels: np.ndarray, number: int) -> np.ndarray:
    """How often each image is in each of `number` resamples, (number, n) int64.

    A resample has as many images of each class as there are: they are drawn from those of the class with replacement.
    """
    counts, rng = np.zeros((number, len(labels)), dtype=np.int64), np.random.default_rng(SEED)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        counts[:, of_class] = rng.multinomial(len(of_class), np.full(len(of_class), 1 / len(of_class)), size=number)
    return counts


def interval(value: float, resampled: np.ndarray, limits: tuple[float, float]) -> tuple[float, float] | None:
    """The interval of a metric's value from the values of resamples: their percentiles, moved to the value.

    A resample has fewer different images than the whole set, about 63%. This shifts the values of metrics that depend on
    the number of different images, such as coverage. The percentiles are therefore moved by the difference between the
    value and the median of the resamples, and then cut off at `limits`. None if there is no value, or none of resamples,
    or if the resamples agree, since they then do not tell how much the value varies: that of one image, for example, or a
    coverage of 1.

    >>> low, high = interval(5.0, np.arange(101.0), (0.0, 100.0))
    >>> round(low, 6), round(high, 6)  # the percentiles are 2.5 and 97.5 around the median 50
    (0.0, 52.5)
    >>> interval(1.0, np.ones(100), (0.0, 1.0)) is None
    True
    """
    finite = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(finite):
        return None
    ends = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - np.median(finite) + value
    low, high = np.clip(ends, *limits)
    low, high = min(float(low), value), max(float(high), value)
    return None if high - low <= TINY + ROUNDING * max(abs(low), abs(high)) else (low, high)


def interval_of_share(are: np.ndarray) -> tuple[float, float]:
    """Wilson's interval of a share, from whether each of n independent images counts, (n,) bool, with n above 0.

    It has a width also for shares of 0 and 1, where all resamples are alike. Source: Wilson, "Probable inference, the law
    of succession, and statistical inference", JASA 1927; computed by scipy.

    >>> low, high = interval_of_share(np.zeros(40, dtype=bool))
    >>> low, round(high, 4)
    (0.0, 0.0876)
    """
    found = binomtest(int(are.sum()), len(are)).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)
