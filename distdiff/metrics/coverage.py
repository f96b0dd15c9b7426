"""The coverage metric."""

import numpy as np

from distdiff.keys import PositiveInt
from distdiff.metrics.base import Features, Metric
from distdiff.metrics.distances import ROUNDING, in_balls, longest, nearest, radii, too_few_neighbours


class Coverage(Metric):
    r"""The share of real images whose neighbourhood has a generated image.

    .. math:: \frac{1}{N} \sum_{i=1}^{N} [\min_j \|y_j - x_i\| \le r_k(x_i)]

    The x are real features and the y are generated features; r_k(x) is the distance from x to its k-th nearest real
    neighbour. k is the smaller of `num_neighbours` and the number of other real images. Coverage is in [0, 1], and
    higher is better. It is computed on the CPU. Coverage rises with the number of generated images, so compare only
    values for equal numbers of images. NaN if there are no generated images, or fewer than two real ones. The real images
    stay the same, so it is no share of independent images, and its interval is that of resampled generated images.
    Source: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020, eq. 4.

    >>> import torch
    >>> real = Features(torch.tensor([[0.0], [1.0], [2.0], [10.0]]), torch.zeros(4), torch.zeros(4))
    >>> generated = Features(torch.tensor([[0.5]]), torch.zeros(1), torch.zeros(1))
    >>> Coverage(num_neighbours=1)(real, generated)  # 0.5 is within the radius of 0 and 1 (1 each), not of 2 (1) or 10 (8)
    0.5
    """

    higher_is_better = True
    limits = (0.0, 1.0)
    least_real = 2

    def __init__(self, *, num_neighbours: PositiveInt) -> None:
        self.num_neighbours = num_neighbours

    def __call__(self, real: Features, generated: Features) -> float:
        if self.lacks(real, generated):
            return float("nan")
        _, distances = nearest(real, generated)
        return float((distances <= radii(real, self.num_neighbours) + ROUNDING * longest(real, generated)).mean())

    def remark(self, real: Features, generated: Features) -> str | None:
        return too_few_neighbours(real, self.num_neighbours, "real")

    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray:
        """The neighbourhoods are those of the real images, so only the presence of generated images varies."""
        present = (counts > 0).T.astype(np.float32)
        covered = np.zeros(len(counts))
        for _, inside in in_balls(real, radii(real, self.num_neighbours), generated):
            covered += (inside.astype(np.float32) @ present > 0.5).sum(0)
        return covered / len(real)
