"""Selection by covariance: the kept images, together with the real ones, vary as the real images of the class do."""

from typing import Any

import numpy as np

from distdiff.errors import UserError
from distdiff.keys import PositiveInt
from distdiff.selection.base import Candidates, Selection


class CovarianceMatching(Selection):
    """Adds one image at a time: the one with which ‖cov(kept) − C‖ (Frobenius) is smallest (Rezaei et al., 2026).

    C is the covariance of the class's real features, and all features are projected onto the `dimensions` directions in
    which C is largest. A class of fewer than `pool_below` real images has too little to estimate C from; its C is the
    covariance within classes, pooled over all classes. With `with_real`, the real images of the class count as kept from
    the start, because a classifier trains on both. Of equally good images, the first in the plan's order is kept.
    """

    def __init__(self, *, dimensions: PositiveInt, pool_below: PositiveInt, with_real: bool, **keys: Any) -> None:
        super().__init__(**keys)
        self.dimensions = dimensions
        self.pool_below = pool_below
        self.with_real = with_real

    def check(self, labels: np.ndarray) -> None:
        """Raises `UserError` if no class has two images: then nothing is known of how images of a class differ."""
        if not (np.bincount(labels) > 1).any():
            raise UserError(
                "selection=covariance is not allowed: no class has two real images, so how images of a class differ is "
                "not known; use two images a class or more, or selection=nearest_real"
            )

    def choose(self, candidates: Candidates, wanted: int, last: bool) -> np.ndarray:
        deviations, freedom = self._deviations(candidates)
        directions = principal_directions(deviations, self.dimensions)
        projected = deviations @ directions
        real = candidates.real.double().numpy() @ directions
        return matched(
            candidates.features.double().numpy() @ directions,
            real if self.with_real else real[:0],
            projected.T @ projected / freedom,
            wanted,
        )

    def _deviations(self, candidates: Candidates) -> tuple[np.ndarray, int]:
        """The real features (n, D) that C is estimated from, each minus the mean of its class, and their degrees of
        freedom: n minus the number of classes.
        """
        if len(candidates.real) >= max(self.pool_below, 2):
            groups = [candidates.real.double().numpy()]
        else:
            features, labels = candidates.all_real.features.double().numpy(), candidates.all_real.labels
            groups = [features[labels == label] for label in np.unique(labels)]
        deviations = np.concatenate([group - group.mean(0) for group in groups])
        return deviations, len(deviations) - len(groups)


def principal_directions(deviations: np.ndarray, most: int) -> np.ndarray:
    """The directions (D, d) in which centred features (n, D) vary most: at most `most`, none without any variation."""
    _, sizes, directions = np.linalg.svd(deviations, full_matrices=False)
    varying = sizes > 1e-7 * max(sizes[0], 1.0)
    return directions[varying][:most].T


def matched(features: np.ndarray, kept: np.ndarray, target: np.ndarray, wanted: int) -> np.ndarray:
    """The indices of `wanted` of the `features` (n, d), in the order in which they were added to `kept` (m, d).

    Each is the one with which the sample covariance of all that is kept is nearest to `target` (d, d). If x is added to m
    features with mean μ and scatter M, the covariance becomes M/m + δδᵀ/(m + 1), where δ = x − μ; so the distance to the
    target needs only δᵀAδ and ‖δ‖ for each x, where A = M/m − target. A single feature has covariance 0.
    """
    left, chosen = list(range(len(features))), []
    count, mean = len(kept), kept.mean(0) if len(kept) else np.zeros(features.shape[1])
    scatter = (kept - mean).T @ (kept - mean)
    for _ in range(min(wanted, len(features))):
        away = features[left] - mean
        if count:
            gap = scatter / count - target
            linear = 2 / (count + 1) * np.einsum("id,de,ie->i", away, gap, away, optimize=True)
            best = int((linear + ((away**2).sum(1) / (count + 1)) ** 2).argmin())
        else:
            best = 0
        scatter += count / (count + 1) * np.outer(away[best], away[best])
        count += 1
        mean = mean + away[best] / count
        chosen.append(left.pop(best))
    return np.array(chosen, dtype=np.int64)
