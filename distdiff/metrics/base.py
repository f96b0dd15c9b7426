"""What every metric is: a number for how generated images compare with real ones, in the features of a judge."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch


@dataclass(frozen=True)
class Features:
    """A set of n images as a judge sees them: features (n, D), labels (n,), and the labels that it predicts (n,)."""

    features: torch.Tensor
    labels: torch.Tensor
    predicted: torch.Tensor

    def __len__(self) -> int:
        return len(self.features)

    def select(self, positions: torch.Tensor) -> "Features":
        """Those at `positions`, in that order."""
        return Features(self.features[positions], self.labels[positions], self.predicted[positions])


class Metric(ABC):
    """Compares generated images with real ones; an option of `conf/metric`, whose keys its `__init__` takes.

    `needs_labels`: the metric compares labels with the judge's predictions. Its baseline value is then computed on
    held-out images, since the judge was trained on the labels of the others.
    """

    higher_is_better: ClassVar[bool]
    needs_labels: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, real: Features, generated: Features) -> float: ...
