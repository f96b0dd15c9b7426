"""The base of metrics. A metric is a number that compares generated with real images by their features."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from distdiff.metrics.intervals import interval, interval_of_share
from distdiff.wording import counted

T = TypeVar("T")
ANY = (-np.inf, np.inf)


@dataclass(frozen=True, eq=False)
class Features:
    """A view of n images, with features (n, D), true labels (n,) and the labels (n,) that the judge predicts.

    All tensors are on the CPU, even if the judge is on another device.
    """

    features: torch.Tensor
    labels: torch.Tensor
    predicted: torch.Tensor
    _known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.features)

    def select(self, positions: torch.Tensor) -> "Features":
        """The entries at `positions`, in that order."""
        return Features(self.features[positions], self.labels[positions], self.predicted[positions])

    def of_class(self, label: int) -> "Features":
        """The entries whose true label is `label`."""
        return self.once(("of_class", label), lambda: self.select((self.labels == label).nonzero()[:, 0]))

    @property
    def classes(self) -> list[int]:
        """The true labels that occur, in ascending order."""
        return self.once("classes", lambda: self.labels.unique().tolist())

    @property
    def broken(self) -> int:
        """The number of images of which a feature is no finite number."""
        return self.once("broken", lambda: int((~self.features.isfinite()).any(1).sum()))

    @property
    def points(self) -> np.ndarray:
        """The features as an array (n, D) of float64."""
        return self.once("points", lambda: self.features.double().numpy())

    @property
    def accuracy(self) -> float:
        """The fraction of images whose true label the judge predicts; NaN if there are no images."""
        return float((self.predicted == self.labels).double().mean())

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The result of `compute()`, which is computed once and kept under `key` for as long as these features."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def once_with(self, other: "Features", key: Hashable, compute: Callable[[], T]) -> T:
        """The result of `compute()`, which depends on `other` too. It is kept under `key` until there is another `other`.

        So the features of real images, which last, do not keep all that was ever compared with them.
        """
        known = self._known.get(key)
        if known is None or known[0] is not other:
            known = self._known[key] = (other, compute())
        return known[1]


class Metric(ABC):
    """Compares generated with real images.

    Each metric is an option of `conf/metric`; the option's keys are the arguments of the metric's `__init__`.

    `higher_is_better` is None if neither higher nor lower values are better. `needs_labels` says whether the metric
    compares labels with the judge's predictions. The baseline value of such a metric (`metrics.reference`) is computed
    on held-out images, since the judge was trained on the labels of the real images. `limits` are the least and the
    greatest value that is possible. `least_real` and `least_generated` are the numbers of images below which there is no
    value; `least_real` is 0 if the features of the real images are not used.
    """

    higher_is_better: ClassVar[bool | None]
    needs_labels: ClassVar[bool] = False
    limits: ClassVar[tuple[float, float]] = ANY
    least_real: ClassVar[int] = 1
    least_generated: ClassVar[int] = 1

    @abstractmethod
    def __call__(self, real: Features, generated: Features) -> float:
        """The value, which is NaN if these images have none (`lacks`)."""

    def lacks(self, real: Features, generated: Features) -> str | None:
        """Why these images have no value, in words like those of `remark`; None if they have one.

        A metric that needs more than so many images with finite features overrides it.
        """
        for images, least, kind in ((real, self.least_real, "real"), (generated, self.least_generated, "new")):
            if least and len(images) < least:
                return (
                    f"no value, since it needs {counted(least, f'{kind} image')} or more, and there {_are(len(images))}"
                )
            if least and (broken := images.broken):
                has = "has" if broken == 1 else "have"
                return f"no value, since {counted(broken, f'{kind} image')} {has} features that are no finite numbers"
        return None

    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray:
        """The values (B,) for B resamples of the generated images, of which `counts` (B, n) says how often each has an image.

        This computes each value anew. A metric whose value follows from numbers that are known for each image or each
        pair of images overrides it.
        """
        chosen = (torch.as_tensor(np.repeat(np.arange(len(row)), row)) for row in counts)
        return np.array([float(self(real, generated.select(positions))) for positions in chosen])

    def interval(
        self, value: float, real: Features, generated: Features, counts: np.ndarray
    ) -> tuple[float, float] | None:
        """The interval of the `value` for these images, from the resamples `counts` (B, n); None if it is not known."""
        return interval(value, self.resampled(real, generated, counts), self.limits)

    def remark(self, real: Features, generated: Features) -> str | None:
        """A caution about this metric's value for these images, or None if there is nothing to say.

        The remark is one clause without a full stop. It is shown as a footnote to the value, and saved with the value.
        A value for a single class that would have a remark is left out.
        """
        return None

    def of_real(self, real: Features, compute: Callable[[Features], T]) -> T:
        """The result of `compute(real)`, which is computed once.

        This saves time when many sets of generated images are compared with the same real images.
        """
        return real.once((self, _name(compute)), lambda: compute(real))

    def of_pair(self, real: Features, generated: Features, compute: Callable[[Features, Features], T]) -> T:
        """The result of `compute(real, generated)`, which is computed once as long as the real images stay the same."""
        return generated.once_with(real, (self, _name(compute)), lambda: compute(real, generated))


class ImageMetric(Metric):
    """A metric whose value is the mean of one number per generated image."""

    @abstractmethod
    def of_images(self, real: Features, generated: Features) -> np.ndarray:
        """The number (n,) of each generated image."""

    def __call__(self, real: Features, generated: Features) -> float:
        if self.lacks(real, generated):
            return float("nan")
        return float(self.of_pair(real, generated, self.of_images).mean())

    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray:
        return counts @ self.of_pair(real, generated, self.of_images) / counts.sum(1)


class ShareMetric(ImageMetric):
    """A metric whose value is the share of the generated images that are of some kind, each of which is judged by itself.

    `of_images` returns bool. Its interval is that of a share of independent images, for which resamples are not needed.
    """

    limits = (0.0, 1.0)

    def interval(
        self, value: float, real: Features, generated: Features, counts: np.ndarray
    ) -> tuple[float, float] | None:
        return interval_of_share(self.of_pair(real, generated, self.of_images))


class CountedMetric(Metric):
    """A metric whose value is that of `resampled` with each generated image once."""

    def __call__(self, real: Features, generated: Features) -> float:
        if self.lacks(real, generated):
            return float("nan")
        return float(self.resampled(real, generated, np.ones((1, len(generated)), dtype=np.int64))[0])

    @abstractmethod
    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray: ...


def _are(number: int) -> str:
    """
    >>> _are(0), _are(1), _are(2)
    ('is none', 'is 1', 'are 2')
    """
    return f"is {number or 'none'}" if number < 2 else f"are {number:,}"


def _name(compute: Callable[..., Any]) -> str:
    return f"{compute.__module__}.{compute.__qualname__}"
