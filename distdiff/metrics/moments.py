"""Moments of points that count several times, as those of a resample do."""

import numpy as np
import torch


def weighted_deviations(points: np.ndarray, counts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean (D,) of `points` (n, D) that count `counts` (n,) times, and a root G (m, D) of their unbiased covariance.

    Gᵀ G is the covariance. G has a row for each point that counts at all.

    >>> points, counts = np.array([[0.0], [2.0], [9.0]]), np.array([1, 2, 0])
    >>> mean, root = weighted_deviations(points, counts)
    >>> np.isclose(root.T @ root, np.cov([0.0, 2.0, 2.0])).item()
    True
    """
    chosen = np.flatnonzero(counts)
    weights, total = torch.as_tensor(counts[chosen]).double(), int(counts.sum())
    rows = torch.as_tensor(points[chosen])  # a copy
    mean = weights @ rows / total
    return mean, rows.sub_(mean).mul_((weights / (total - 1)).sqrt()[:, None])
