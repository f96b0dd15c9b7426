"""The distance to the nearest real image as a metric."""

import numpy as np

from distdiff.metrics.base import CountedMetric, Features
from distdiff.metrics.distances import SAME, longest, nearest, radii


class NearestReal(CountedMetric):
    r"""How far generated images are from the nearest real image, in units of the real images' own nearest distances.

    .. math:: \operatorname{median}_j \min_i \|y_j - x_i\| \;/\; \operatorname{median}_i \min_{i' \ne i} \|x_i - x_{i'}\|

    The x are real features and the y are generated features. The value is in [0, ∞). It is about 1 for further images
    like the real ones and 0 for copies of them; far above 1, images are unlike all real images. Neither higher nor
    lower is better. The nearest real image may be of another class. NaN if there are no generated images or
    fewer than two real ones, or if most real images have a copy among the real ones.

    >>> import torch
    >>> real = Features(torch.tensor([[0.0], [1.0], [2.0]]), torch.zeros(3), torch.zeros(3))
    >>> NearestReal()(real, Features(torch.tensor([[0.5], [2.25], [1.0]]), torch.zeros(3), torch.zeros(3)))
    0.25
    """

    higher_is_better = None
    limits = (0.0, np.inf)
    least_real = 2

    def lacks(self, real: Features, generated: Features) -> str | None:
        lacking = super().lacks(real, generated)
        if lacking is None and self.of_real(real, _unit) <= SAME * longest(real):
            return "no value, since most real images have a copy among the real ones, which leaves no unit of distance"
        return lacking

    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray:
        return medians(nearest(generated, real)[1], counts) / self.of_real(real, _unit)


def _unit(real: Features) -> float:
    return float(np.median(radii(real, 1)))


def medians(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The medians (B,) of samples in which value i of `values` (n,) is `counts[b, i]` times.

    >>> medians(np.array([3.0, 1.0, 2.0]), np.array([[1, 1, 1], [2, 0, 0], [0, 1, 1]]))
    array([2. , 3. , 1.5])
    """
    order = np.argsort(values)
    reached, total = counts[:, order].cumsum(1), counts.sum(1)
    lower, upper = ((reached > place[:, None]).argmax(1) for place in ((total - 1) // 2, total // 2))
    return (values[order][lower] + values[order][upper]) / 2
