"""`expansion.sources=hard`: the sources that the guide learnt last."""

import math

import numpy as np


def hardest(order: np.ndarray, labels: np.ndarray, fraction: float) -> np.ndarray:
    """The sorted positions of the images with the highest `order` in each class.

    These are the images that TADA augments (Nguyen et al., 2025): those that are not learnt early in the training. TADA
    chooses a time in the training; here a `fraction` of each class is chosen, but at least one image. An image that was
    learnt later has a larger `order` (n,). `labels` (n,) are the classes of the images.

    >>> hardest(np.array([3.0, 1.0, 2.0, 0.0]), np.array([0, 0, 0, 1]), 0.5).tolist()
    [0, 2, 3]
    """
    chosen = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        count = max(1, math.ceil(fraction * len(own)))
        chosen.append(own[np.argsort(-order[own], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen))
