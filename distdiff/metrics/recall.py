"""The recall metric."""

import numpy as np

from distdiff.keys import PositiveInt
from distdiff.metrics.base import CountedMetric, Features
from distdiff.metrics.distances import in_balls, radii, too_few_neighbours


class Recall(CountedMetric):
    r"""The share of real images that lie in the neighbourhood of a generated image.

    .. math:: \frac{1}{N} \sum_{i=1}^{N} [\exists j: \|y_j - x_i\| \le r_k(y_j)]

    The x are real features and the y are generated features; r_k(y) is the distance from y to its k-th nearest
    generated neighbour. k is the smaller of `num_neighbours` and the number of other generated images. Recall is in
    [0, 1], and higher is better. Few or scattered generated images have large neighbourhoods, which raises recall
    (`Coverage` has neighbourhoods of real images instead). Source: Kynkäänniemi et al., "Improved Precision and Recall
    Metric for Assessing Generative Models", NeurIPS 2019, eq. 1 and 2. NaN if there are no real images, or fewer than two
    generated ones. The real images stay the same, so it is no share of independent images, and its interval is that of
    resampled generated images.

    >>> import torch
    >>> real = Features(torch.tensor([[0.5], [2.5], [3.5], [-9.0]]), torch.zeros(4), torch.zeros(4))
    >>> generated = Features(torch.tensor([[0.0], [1.0], [2.0]]), torch.zeros(3), torch.zeros(3))
    >>> Recall(num_neighbours=1)(real, generated)
    0.5
    """

    higher_is_better = True
    limits = (0.0, 1.0)
    least_generated = 2

    def __init__(self, *, num_neighbours: PositiveInt) -> None:
        self.num_neighbours = num_neighbours

    def remark(self, real: Features, generated: Features) -> str | None:
        return too_few_neighbours(generated, self.num_neighbours, "new")

    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray:
        """The neighbourhoods are those among all generated images, and only the presence of images varies.

        In a resample itself, an image that is in it several times would be its own nearest neighbour.
        """
        present = (counts > 0).astype(np.float32)
        found = np.zeros((len(counts), len(real)), dtype=bool)
        for rows, inside in in_balls(generated, radii(generated, self.num_neighbours), real):
            found |= present[:, rows] @ inside.astype(np.float32) > 0.5
        return found.mean(1)
