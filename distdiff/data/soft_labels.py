"""Labels that name several classes, each with a weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

SoftLabel = tuple[tuple[int, float], ...]  # (class, weight), largest weight first; weights are positive and sum to 1


def soft_label(weights: Mapping[int, float]) -> SoftLabel:
    """Scales the weights to sum to 1, leaves out zeros, and sorts by weight (largest first), then by class number.

    >>> soft_label({3: 1.0, 0: 3.0, 5: 0.0})
    ((0, 0.75), (3, 0.25))
    """
    total = sum(weights.values())
    shares = ((label, weight / total) for label, weight in weights.items() if weight > 0)
    return tuple(sorted(shares, key=lambda share: (-share[1], share[0])))


@dataclass(frozen=True)
class SoftLabels:
    """The soft labels of n images: `classes` (n, k) int64 and `weights` (n, k) float32.

    An image with fewer than k classes has weights of 0 at the end of its row.
    """

    classes: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, labels: Sequence[SoftLabel]) -> "SoftLabels":
        """The labels of several images, each with one or more classes.

        >>> SoftLabels.of([((2, 1.0),), ((0, 0.75), (3, 0.25))]).target(1, num_classes=4)
        tensor([0.7500, 0.0000, 0.0000, 0.2500])
        """
        width = max(map(len, labels), default=1)
        classes = np.zeros((len(labels), width), dtype=np.int64)
        weights = np.zeros((len(labels), width), dtype=np.float32)
        for row, label in enumerate(labels):
            for column, (number, weight) in enumerate(label):
                classes[row, column], weights[row, column] = number, weight
        return cls(classes, weights)

    def __len__(self) -> int:
        return len(self.classes)

    def label(self, position: int) -> SoftLabel:
        """The classes of the image at `position` that have a weight, and these weights.

        >>> SoftLabels.of([((2, 1.0),), ((0, 0.75), (3, 0.25))]).label(0)
        ((2, 1.0),)
        """
        pairs = zip(self.classes[position].tolist(), self.weights[position].tolist(), strict=True)
        return tuple(pair for pair in pairs if pair[1] > 0)

    def select(self, positions: np.ndarray) -> "SoftLabels":
        """The labels at `positions`, in that order."""
        return SoftLabels(self.classes[positions], self.weights[positions])

    @classmethod
    def joined(cls, parts: "Sequence[SoftLabels]") -> "SoftLabels":
        """The labels of several parts of one source, which are equally wide."""
        return cls(np.concatenate([part.classes for part in parts]), np.concatenate([part.weights for part in parts]))

    def target(self, position: int, num_classes: int) -> torch.Tensor:
        """The probabilities of all classes for the image at `position`, (num_classes,) float32."""
        target = torch.zeros(num_classes)
        return target.index_add_(0, torch.from_numpy(self.classes[position]), torch.from_numpy(self.weights[position]))
