"""The share of near copies of real images, as a metric."""

import numpy as np

from distdiff.keys import Share
from distdiff.metrics.base import Features, ShareMetric
from distdiff.metrics.distances import SAME, longest, nearest, radii


class NearCopies(ShareMetric):
    r"""The share of generated images that are nearer to a real image than real images hardly ever are to each other.

    .. math:: \frac{1}{M} \sum_{j=1}^{M} [\min_i \|y_j - x_i\| \le q]

    The x are real features and the y are generated features; q is the quantile `quantile` of the distances from the
    real images to their nearest other real image. The value is in [0, 1], and lower is better: images that were
    memorised, or hardly changed, are near copies. Of further images like the real ones, about the share `quantile` are
    near copies too. The nearest real image may be of another class. NaN if there are no generated
    images, or fewer than two real ones.
    Related: Meehan et al., "A Non-Parametric Test to Detect Data-Copying in Generative Models", AISTATS 2020.

    >>> import torch
    >>> real = Features(torch.tensor([[0.0], [1.0], [2.0], [4.0]]), torch.zeros(4), torch.zeros(4))
    >>> NearCopies(quantile=0.1)(real, Features(torch.tensor([[0.5], [2.0], [9.0]]), torch.zeros(3), torch.zeros(3)))
    0.6666666666666666
    """

    higher_is_better = False
    least_real = 2

    def __init__(self, *, quantile: Share) -> None:
        self.quantile = quantile

    def of_images(self, real: Features, generated: Features) -> np.ndarray:
        nearer = np.quantile(radii(real, 1), self.quantile)
        return nearest(generated, real)[1] <= max(nearer, SAME * longest(real, generated))
