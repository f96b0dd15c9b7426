"""What a judge sees in single images: the label it predicts, and the nearest real image."""

from dataclasses import dataclass

import numpy as np

from distdiff.metrics.base import Features
from distdiff.metrics.distances import nearest


@dataclass(frozen=True)
class Looks:
    """One entry per image, in the order of the images, as arrays of numpy.

    `predicted` (n,) is the label that the judge predicts. `nearest` (n,) is the position of the nearest real image, of
    whatever class, in `Measurer.images`, and `distance` (n,) is the Euclidean distance to it in the judge's features.
    """

    predicted: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray

    def __len__(self) -> int:
        return len(self.predicted)


def looks(real: Features, seen: Features) -> Looks:
    """The looks at the images whose features are `seen`.

    >>> import torch
    >>> labels = torch.tensor([0, 1])
    >>> real = Features(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), labels, labels)
    >>> looks(real, Features(torch.tensor([[0.0, 4.0]]), labels[1:], labels[:1]))
    Looks(predicted=array([0]), nearest=array([1]), distance=array([3.]))
    """
    if not len(seen):
        return Looks(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    positions, distances = nearest(seen, real)
    return Looks(seen.predicted.numpy().astype(np.int64), positions.astype(np.int64), distances)
