"""The Frechet distance as a metric."""

import numpy as np
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from distdiff.metrics.base import Features, Metric
from distdiff.metrics.moments import weighted_deviations

INSTEAD = "kernel_distance"  # the metric that leads where this one has a remark


class FrechetDistance(Metric):
    r"""The Frechet distance between Gaussians fitted to the features of real and generated images, by torchmetrics.

    .. math:: \|\mu_r - \mu_g\|^2 + \operatorname{tr}(\Sigma_r + \Sigma_g - 2 (\Sigma_r \Sigma_g)^{1/2})

    The distance is in [0, ∞), and lower is better. It is computed in float64 on the CPU, since the square root of a
    product of covariances is badly conditioned. The distance falls as the number of images rises, so compare only
    values for equal numbers of images. If the number of real or of generated images does not exceed the number of
    feature dimensions, a covariance is singular and the distance is biased; `remark` then warns about it. NaN if
    there are fewer than two real images or fewer than two generated images.
    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS
    2017, eq. 6, where the features are those of an Inception network.

    >>> points = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    >>> labels = torch.zeros(500, dtype=torch.long)
    >>> real, generated = Features(points, labels, labels), Features(points + 2, labels, labels)
    >>> round(FrechetDistance()(real, generated), 3)  # equal covariances: the squared distance of the means
    12.0
    >>> FrechetDistance().remark(real, real.select(torch.arange(2))).split(":")[0]
    'no more images (2) than feature dimensions (3)'
    """

    higher_is_better = False
    limits = (0.0, np.inf)
    least_real = least_generated = 2

    def __call__(self, real: Features, generated: Features) -> float:
        if self.lacks(real, generated):
            return float("nan")
        metric = self.of_real(real, _seen_real)
        metric.reset()  # drops the last generated images and keeps the real ones
        metric.update(generated.features.double(), real=False)
        return max(0.0, float(metric.compute()))  # rounding may make it slightly negative

    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray:
        """The same distance with the trace of the root of the covariances' product as a sum of singular values."""
        mean, spread, root = self.of_real(real, _moments)
        points = generated.points - mean
        return np.array([_distance(points, row, spread, root) for row in counts])

    def remark(self, real: Features, generated: Features) -> str | None:
        images, dimensions = min(len(real), len(generated)), real.features.shape[1]
        if images > dimensions:
            return None
        return (
            f"no more images ({images:,}) than feature dimensions ({dimensions:,}): the covariance is singular and the distance "
            f"biased; {INSTEAD} is not, or compare it only with distances from as many images"
        )


def _seen_real(real: Features) -> FrechetInceptionDistance:
    identity = nn.Identity()
    identity.num_features = real.features.shape[1]
    metric = FrechetInceptionDistance(feature=identity, reset_real_features=False).set_dtype(torch.float64)
    metric.update(real.features.double(), real=True)
    return metric


def _moments(real: Features) -> tuple[np.ndarray, float, np.ndarray]:
    """The mean (D,), the trace of the covariance Σ, and a root R (D, p) of it, R Rᵀ = Σ, where p ≤ D is Σ's rank or more."""
    mean = real.points.mean(0)
    deviations = (real.points - mean) / np.sqrt(len(real) - 1)
    if len(real) <= deviations.shape[1]:
        return mean, float((deviations**2).sum()), deviations.T
    values, vectors = np.linalg.eigh(deviations.T @ deviations)
    return mean, float((deviations**2).sum()), vectors * np.sqrt(values.clip(min=0))


def _distance(points: np.ndarray, counts: np.ndarray, spread: float, root: np.ndarray) -> float:
    """The distance to `points` (n, D), of which point i counts `counts[i]` times, minus the mean of the real ones.

    With Gᵀ G as their covariance, the eigenvalues of (R Rᵀ)(Gᵀ G) are the squares of the singular values of G R.
    """
    mean, deviations, real = *weighted_deviations(points, counts), torch.as_tensor(root)
    if len(deviations) > deviations.shape[1]:
        inner = real.T @ (deviations.T @ deviations) @ real
    else:
        inner = (product := deviations @ real) @ product.T
    trace = torch.linalg.eigvalsh(inner).clamp(min=0).sqrt().sum()
    return float(mean @ mean + spread + torch.linalg.vector_norm(deviations) ** 2 - 2 * trace)
