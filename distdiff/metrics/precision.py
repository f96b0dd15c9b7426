"""The precision metric."""

import numpy as np

from distdiff.keys import PositiveInt
from distdiff.metrics.base import Features, ShareMetric
from distdiff.metrics.distances import in_balls, radii, too_few_neighbours


class Precision(ShareMetric):
    r"""The share of generated images that lie in the neighbourhood of a real image.

    .. math:: \frac{1}{M} \sum_{j=1}^{M} [\exists i: \|y_j - x_i\| \le r_k(x_i)]

    The x are real features and the y are generated features; r_k(x) is the distance from x to its k-th nearest real
    neighbour. k is the smaller of `num_neighbours` and the number of other real images. Precision is in [0, 1], and
    higher is better. A single outlier among the real images has a large neighbourhood, which raises precision
    (`Density` is less sensitive to it). Source: Kynkäänniemi et al., "Improved Precision and Recall Metric for
    Assessing Generative Models", NeurIPS 2019, eq. 1 and 2.
    NaN if there are no generated images, or fewer than two real ones.

    >>> import torch
    >>> real = Features(torch.tensor([[0.0], [1.0], [2.0]]), torch.zeros(3), torch.zeros(3))
    >>> generated = Features(torch.tensor([[0.5], [2.5], [3.5], [-9.0]]), torch.zeros(4), torch.zeros(4))
    >>> Precision(num_neighbours=1)(real, generated)
    0.5
    """

    higher_is_better = True
    least_real = 2

    def __init__(self, *, num_neighbours: PositiveInt) -> None:
        self.num_neighbours = num_neighbours

    def remark(self, real: Features, generated: Features) -> str | None:
        return too_few_neighbours(real, self.num_neighbours, "real")

    def of_images(self, real: Features, generated: Features) -> np.ndarray:
        found = np.zeros(len(generated), dtype=bool)
        for _, inside in in_balls(real, radii(real, self.num_neighbours), generated):
            found |= inside.any(0)
        return found
