"""The diversity inside classes as a metric."""

import numpy as np

from distdiff.metrics.base import CountedMetric, Features
from distdiff.metrics.distances import distance_blocks


class Diversity(CountedMetric):
    r"""The mean distance between the features of two generated images of a class, averaged over the classes.

    .. math:: \frac{1}{C} \sum_c \frac{1}{M_c (M_c - 1)} \sum_{j \ne j'} \|y_{c,j} - y_{c,j'}\|

    The distance is Euclidean, in the units of the features, and all classes count alike. The value is in [0, ∞), and
    higher is better as long as the images stay in their classes. It does not depend on the number of images. Classes
    with fewer than two generated images are left out; NaN if there is no other class. The real images are not used, so
    the value says nothing without a baseline value, such as the diversity of real images.

    >>> import torch
    >>> points, labels = torch.tensor([[0.0], [1.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1])
    >>> Diversity()(None, Features(points, labels, labels))
    1.5
    """

    higher_is_better = True
    limits = (0.0, np.inf)
    least_real = 0

    def __call__(self, real: Features, generated: Features) -> float:
        value = super().__call__
        return generated.once(self, lambda: value(real, generated))

    def lacks(self, real: Features, generated: Features) -> str | None:
        several = any(len(generated.of_class(label)) > 1 for label in generated.classes)
        return super().lacks(real, generated) or (None if several else "no value, since no class has two new images")

    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray:
        """A pair of the same image, which a resample has if the image is in it twice, is left out, as the formula does."""
        sums, known = np.zeros(len(counts)), np.zeros(len(counts))
        for label in generated.classes:
            images = generated.of_class(label)
            weights = counts[:, generated.labels.numpy() == label].T.astype(np.float64)
            pairs = weights.sum(0) ** 2 - (weights**2).sum(0)
            total = sum(
                ((distances @ weights) * weights[rows]).sum(0) for rows, distances in distance_blocks(images, images)
            )
            sums += np.divide(total, pairs, out=np.zeros(len(counts)), where=pairs > 0)
            known += pairs > 0
        return np.divide(sums, known, out=np.full(len(counts), np.nan), where=known > 0)
