"""A hierarchical bootstrap of accuracies: data seeds, then training seeds within them, then test images.

The images are the same for all classifiers, so they are resampled once for all of them. All rows of a study share the
resampled seeds and images, so that the difference of two rows is paired.
"""

from collections.abc import Iterator

import numpy as np

from distdiff.study.statistics import Interval

RESAMPLES = 10_000
ROOM = 4_000_000  # numbers that are held in memory at once


def bootstrap_means(correct: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """The mean accuracy of each row in each resample: (resamples, rows).

    `correct` (rows, data seeds, training seeds, images) holds 1 for each image that a classifier labels rightly, and 0
    otherwise; any numbers are allowed, and a single image stands for accuracies whose images are not known.
    """
    rows, seeds, trainings, images = correct.shape
    values = correct.reshape(-1, images).astype(np.float32)
    found = []
    for some in _chunks(resamples, max(images, seeds * trainings)):
        generator = np.random.default_rng((seed, some.start))
        of_images = _counts(generator, len(some), images) / images
        means = (values @ of_images.T.astype(np.float32)).reshape(rows, seeds, trainings, -1)
        found.append(np.einsum("rstn,nst->nr", means, _seed_weights(generator, len(some), seeds, trainings)))
    return np.concatenate(found)


def percentile_interval(differences: np.ndarray, confidence: float) -> Interval:
    """The interval between the percentiles that leave the same share of `differences` out on each side."""
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def _chunks(total: int, size: int) -> Iterator[range]:
    step = max(1, ROOM // size)
    return (range(start, min(start + step, total)) for start in range(0, total, step))


def _seed_weights(generator: np.random.Generator, count: int, seeds: int, trainings: int) -> np.ndarray:
    """How much each training counts in each resample: (count, seeds, trainings), which add up to 1 in each.

    Data seeds are drawn with replacement, and for each draw of a data seed its training seeds are drawn anew.
    """
    drawn = generator.integers(seeds, size=(count, seeds))
    within = _counts(generator, count * seeds, trainings).reshape(count, seeds, trainings)
    weights = np.zeros((count, seeds, trainings))
    np.add.at(weights, (np.arange(count)[:, None], drawn), within / (seeds * trainings))
    return weights


def _counts(generator: np.random.Generator, count: int, size: int) -> np.ndarray:
    """How often each of `size` things is drawn in each of `count` resamples of the same size: (count, size)."""
    drawn = generator.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
