"""The coverage metric."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from distdiff.keys import PositiveInt
from distdiff.metrics.base import Features, Metric


class Coverage(Metric):
    r"""The share of real images whose neighbourhood has a generated image.

    .. math:: \frac{1}{N} \sum_{i=1}^{N} [\min_j \|y_j - x_i\| \le r_k(x_i)]

    The x are real features and the y are generated features; r_k(x) is the distance from x to its k-th nearest real
    neighbour. k is the smaller of `num_neighbours` and the number of other real images. Coverage is in [0, 1], and
    higher is better. It is computed on the CPU. Coverage rises with the number of generated images, so compare only
    values for equal numbers of images. Raises `ValueError` if there are no real images or no generated images.
    Source: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020, eq. 4.

    >>> import torch
    >>> real = Features(torch.tensor([[0.0], [1.0], [2.0], [10.0]]), torch.zeros(4), torch.zeros(4))
    >>> generated = Features(torch.tensor([[0.5]]), torch.zeros(1), torch.zeros(1))
    >>> Coverage(num_neighbours=1)(real, generated)  # 0.5 is within the radius of 0 and 1 (1 each), not of 2 (1) or 10 (8)
    0.5
    """

    higher_is_better = True

    def __init__(self, *, num_neighbours: PositiveInt) -> None:
        self.num_neighbours = num_neighbours

    def __call__(self, real: Features, generated: Features) -> float:
        radii = self.of_real(real, self._radii)
        nearest = NearestNeighbors(n_neighbors=1).fit(generated.features.numpy()).kneighbors(real.features.numpy())[0]
        return float((nearest[:, 0] <= radii).mean())

    def _radii(self, real: Features) -> np.ndarray:
        """The distance (N,) from each real image to its k-th nearest real neighbour."""
        points, num_neighbours = real.features.numpy(), min(self.num_neighbours, len(real) - 1)
        return NearestNeighbors(n_neighbors=num_neighbours + 1).fit(points).kneighbors(points)[0][:, -1]
