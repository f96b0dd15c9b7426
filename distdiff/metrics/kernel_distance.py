"""The kernel distance as a metric."""

from collections.abc import Iterator

import numpy as np
import torch
from torchmetrics.image.kid import poly_kernel

from distdiff.metrics.base import CountedMetric, Features

BLOCK = 2**22  # values of the kernel that are computed at once


class KernelDistance(CountedMetric):
    r"""The squared maximum mean discrepancy of the features, with the polynomial kernel of degree 3.

    .. math::
        \frac{1}{N(N-1)} \sum_{i \ne i'} k(x_i, x_{i'}) + \frac{1}{M(M-1)} \sum_{j \ne j'} k(y_j, y_{j'})
        - \frac{2}{NM} \sum_{i,j} k(x_i, y_j), \quad k(a, b) = (a \cdot b / D + 1)^3

    The x are real features and the y are generated features, with D dimensions. The distance is 0 on average for images
    of one distribution, so it can be slightly negative; lower is better. Unlike the Frechet distance, it is unbiased
    for any number of images, so values for different numbers are comparable. The kernel is that of torchmetrics, which
    averages over random subsets of equal size; here all pairs of images are used, in float64. NaN if there are fewer
    than two real or generated images.
    Source: Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, sec. 4.

    >>> points = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    >>> labels = torch.zeros(500, dtype=torch.long)
    >>> real = Features(points, labels, labels)
    >>> kernel_distance = KernelDistance()
    >>> near, far = (Features(points.flip(1) + shift, labels, labels) for shift in (0, 1))
    >>> kernel_distance(real, near) < kernel_distance(real, far)
    True
    """

    higher_is_better = False
    least_real = least_generated = 2

    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray:
        """A pair of the same image, which a resample has if the image is in it twice, is left out, as the formula does."""
        weights, total = counts.T.astype(np.float64), counts.sum(1)
        within = np.zeros(len(counts))
        for rows, kernel in _blocks(generated, generated):
            kernel[np.arange(len(kernel)), np.arange(rows.start, rows.stop)] = 0
            within += ((kernel @ weights) * weights[rows]).sum(0)
        across = self.of_pair(real, generated, _to_real) @ weights
        pairs = (total**2 - (weights**2).sum(0)).astype(np.float64)
        pairs[pairs == 0] = np.nan
        return self.of_real(real, _among) + within / pairs - 2 * across / total


def _among(real: Features) -> float:
    """The mean kernel of two different real images."""
    total = sum(kernel.sum() for _, kernel in _blocks(real, real))
    own = (((real.points**2).sum(1) / real.points.shape[1] + 1) ** 3).sum()
    return float(total - own) / (len(real) * (len(real) - 1))


def _to_real(real: Features, generated: Features) -> np.ndarray:
    """The mean kernel (M,) of each generated image with a real image."""
    return np.concatenate([kernel.mean(1) for _, kernel in _blocks(generated, real)])


def _blocks(images: Features, others: Features) -> Iterator[tuple[slice, np.ndarray]]:
    """The kernel of `images` with `others`, some rows at a time: (which images, their values (rows, n))."""
    first, second = torch.as_tensor(images.points), torch.as_tensor(others.points)
    rows = max(1, BLOCK // len(others))
    for start in range(0, len(images), rows):
        block = slice(start, min(start + rows, len(images)))
        yield block, poly_kernel(first[block], second).numpy()
