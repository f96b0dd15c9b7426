"""The base of metrics. A metric is a number that compares generated with real images by a judge's features."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Features:
    """A judge's view of n images, with features (n, D), true labels (n,) and predicted labels (n,).

    All tensors are on the CPU, even if the judge is on another device.
    """

    features: torch.Tensor
    labels: torch.Tensor
    predicted: torch.Tensor

    def __len__(self) -> int:
        return len(self.features)

    def select(self, positions: torch.Tensor) -> "Features":
        """The entries at `positions`, in that order."""
        return Features(self.features[positions], self.labels[positions], self.predicted[positions])

    @property
    def accuracy(self) -> float:
        """The fraction of images whose true label the judge predicts; NaN if there are no images."""
        return float((self.predicted == self.labels).double().mean())


class Metric(ABC):
    """Compares generated with real images.

    Each metric is an option of `conf/metric`; the option's keys are the arguments of the metric's `__init__`.

    `needs_labels` says whether the metric compares labels with the judge's predictions. The baseline value of such a
    metric (`metrics.reference`) is computed on held-out images, since the judge was trained on the labels of the
    real images.
    """

    higher_is_better: ClassVar[bool]
    needs_labels: ClassVar[bool] = False
    _of_real: tuple[Features, Any] | None = None

    @abstractmethod
    def __call__(self, real: Features, generated: Features) -> float: ...

    def remark(self, real: Features, generated: Features) -> str | None:
        """A caution about this metric's value for these images, or None if there is nothing to say.

        The remark is one clause without a full stop. It is shown as a footnote to the value, and saved with the value.
        """
        return None

    def of_real(self, real: Features, compute: Callable[[Features], T]) -> T:
        """The result of `compute(real)`, which is cached until `real` changes.

        This saves time when many sets of generated images are compared with the same real images.
        """
        if self._of_real is None or self._of_real[0] is not real:
            self._of_real = (real, compute(real))
        return self._of_real[1]
