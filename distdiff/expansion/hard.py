"""`expansion.sources=hard`: the sources that the guide learnt last."""

import math

import numpy as np


def hardest(order: np.ndarray, labels: np.ndarray, fraction: float) -> np.ndarray:
    """The positions of a fraction of each class's images, at least one, those of the highest `order`.

    `order` (n,): the larger, the later the guide learnt the image; `labels` (n,).

    >>> hardest(np.array([3.0, 1.0, 2.0, 0.0]), np.array([0, 0, 0, 1]), 0.5).tolist()
    [0, 2, 3]
    """
    chosen = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        count = max(1, math.ceil(fraction * len(own)))
        chosen.append(own[np.argsort(-order[own], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen))
