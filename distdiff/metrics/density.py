"""The density metric."""

import numpy as np

from distdiff.keys import PositiveInt
from distdiff.metrics.base import Features, ImageMetric
from distdiff.metrics.distances import in_balls, radii, too_few_neighbours


class Density(ImageMetric):
    r"""How many real neighbourhoods a generated image lies in, on average, divided by k.

    .. math:: \frac{1}{k M} \sum_{j=1}^{M} \sum_{i=1}^{N} [\|y_j - x_i\| \le r_k(x_i)]

    The x are real features and the y are generated features; r_k(x) is the distance from x to its k-th nearest real
    neighbour. k is the smaller of `num_neighbours` and the number of other real images. Density is in [0, ∞), about 1
    for further images like the real ones, and higher is better. It exceeds 1 if the generated images crowd where real
    images are close together. NaN if there are no generated images, or fewer than two real ones.
    Source: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020, sec. 3.

    >>> import torch
    >>> real = Features(torch.tensor([[0.0], [1.0], [2.0]]), torch.zeros(3), torch.zeros(3))
    >>> generated = Features(torch.tensor([[0.5], [9.0]]), torch.zeros(2), torch.zeros(2))
    >>> Density(num_neighbours=1)(real, generated)  # 0.5 is within the radius of 0 and of 1; 9 is within none
    1.0
    """

    higher_is_better = True
    limits = (0.0, np.inf)
    least_real = 2

    def __init__(self, *, num_neighbours: PositiveInt) -> None:
        self.num_neighbours = num_neighbours

    def remark(self, real: Features, generated: Features) -> str | None:
        return too_few_neighbours(real, self.num_neighbours, "real")

    def of_images(self, real: Features, generated: Features) -> np.ndarray:
        found = np.zeros(len(generated))
        for _, inside in in_balls(real, radii(real, self.num_neighbours), generated):
            found += inside.sum(0)
        return found / min(self.num_neighbours, len(real) - 1)
