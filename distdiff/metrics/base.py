"""What every metric is: a number for how generated images compare with real ones, in the features of a judge."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Features:
    """A set of n images as a judge sees them: features (n, D), labels (n,), and the labels that it predicts (n,).

    On the CPU, wherever the judge runs.
    """

    features: torch.Tensor
    labels: torch.Tensor
    predicted: torch.Tensor

    def __len__(self) -> int:
        return len(self.features)

    def select(self, positions: torch.Tensor) -> "Features":
        """Those at `positions`, in that order."""
        return Features(self.features[positions], self.labels[positions], self.predicted[positions])

    @property
    def accuracy(self) -> float:
        """The fraction of images whose label the judge predicts; NaN where there are no images."""
        return float((self.predicted == self.labels).double().mean())


class Metric(ABC):
    """Compares generated images with real ones; an option of `conf/metric`, whose keys its `__init__` takes.

    `needs_labels`: the metric compares labels with the judge's predictions. Its baseline value is then computed on
    held-out images, since the judge was trained on the labels of the others.
    """

    higher_is_better: ClassVar[bool]
    needs_labels: ClassVar[bool] = False
    _of_real: tuple[Features, Any] | None = None

    @abstractmethod
    def __call__(self, real: Features, generated: Features) -> float: ...

    def remark(self, real: Features, generated: Features) -> str | None:
        """What a reader has to know before trusting this metric's value for these images; None where there is nothing.

        One clause without a full stop, shown as a footnote to the value and written beside it.
        """
        return None

    def of_real(self, real: Features, compute: Callable[[Features], T]) -> T:
        """`compute(real)`, kept until another set of real images comes: many generated sets are compared with one real set."""
        if self._of_real is None or self._of_real[0] is not real:
            self._of_real = (real, compute(real))
        return self._of_real[1]
