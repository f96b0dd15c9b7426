"""The Frechet distance as a metric."""

import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from distdiff.metrics.base import Features, Metric


class FrechetDistance(Metric):
    r"""The Frechet distance between Gaussians fitted to the features of real and generated images, by torchmetrics.

    .. math:: \|\mu_r - \mu_g\|^2 + \operatorname{tr}(\Sigma_r + \Sigma_g - 2 (\Sigma_r \Sigma_g)^{1/2})

    The distance is in [0, ∞), and lower is better. It is computed in float64 on the CPU, since the square root of a
    product of covariances is badly conditioned. The distance falls as the number of images rises, so compare only
    values for equal numbers of images. If the number of real or of generated images does not exceed the number of
    feature dimensions, a covariance is singular and the distance is biased; `remark` then warns about it. Raises
    `RuntimeError` if there are fewer than two real images or fewer than two generated images.
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

    def __call__(self, real: Features, generated: Features) -> float:
        metric = self.of_real(real, _seen_real)
        metric.reset()  # drops the last generated images and keeps the real ones
        metric.update(generated.features.double(), real=False)
        return float(metric.compute())

    def remark(self, real: Features, generated: Features) -> str | None:
        images, dimensions = min(len(real), len(generated)), real.features.shape[1]
        if images > dimensions:
            return None
        return (
            f"no more images ({images:,}) than feature dimensions ({dimensions:,}): the covariance is singular and the distance "
            "biased; compare it only with distances from as many images"
        )


def _seen_real(real: Features) -> FrechetInceptionDistance:
    identity = nn.Identity()
    identity.num_features = real.features.shape[1]
    metric = FrechetInceptionDistance(feature=identity, reset_real_features=False).set_dtype(torch.float64)
    metric.update(real.features.double(), real=True)
    return metric
