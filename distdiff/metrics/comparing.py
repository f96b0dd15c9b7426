"""Compares generated with real images by several metrics: all images, and those of each class."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distdiff.metrics.base import Features, Metric
from distdiff.metrics.intervals import interval, resamples


@dataclass(frozen=True)
class Compared:
    """The values of metrics by name, their intervals if there are any, and the same for each class by its name.

    A value is None if the images have none.
    """

    values: dict[str, float | None]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    classes: dict[str, "Compared"] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain Python objects for JSON; `intervals` and `classes` only if there are any."""
        found: dict[str, Any] = {"values": self.values}
        if self.intervals:
            found["intervals"] = {name: list(ends) for name, ends in self.intervals.items()}
        if self.classes:
            found["classes"] = {name: of_class.as_dict() for name, of_class in self.classes.items()}
        return found


def compare(
    metrics: Mapping[str, Metric],
    real: Features,
    generated: Features,
    class_names: Sequence[str] = (),
    bootstrap: int = 0,
) -> Compared:
    """The values of `metrics` for `generated`, with intervals from so many resamples (0: none).

    If `class_names` are given, so are the values of each class that has images on both sides. A value of a class is
    that of the same metric for the images of the class alone. Classes with fewer than two real or generated images have
    none, and neither has a metric that would have a remark on it.
    """
    counts = resamples(generated.labels.numpy(), bootstrap) if bootstrap else None
    classes = {}
    for label in generated.classes if class_names else ():
        first, second = real.of_class(label), generated.of_class(label)
        if min(len(first), len(second)) > 1:
            known = {name: metric for name, metric in metrics.items() if metric.remark(first, second) is None}
            own = None if counts is None else counts[:, generated.labels.numpy() == label]
            classes[class_names[label]] = _compared(known, first, second, own)
    whole = _compared(metrics, real, generated, counts)
    return Compared(whole.values, whole.intervals, classes)


def _compared(
    metrics: Mapping[str, Metric], real: Features, generated: Features, counts: np.ndarray | None
) -> Compared:
    values, intervals = {}, {}
    for name, metric in metrics.items():
        value = values[name] = number(metric(real, generated))
        if counts is not None and value is not None:
            ends = interval(value, metric.resampled(real, generated, counts), metric.limits)
            intervals |= {} if ends is None else {name: ends}
    return Compared(values, intervals)


def number(value: Any) -> float | None:
    """The value of a metric as a plain number; None if the images have none.

    >>> number(float("nan")), number(np.float32(0.5))
    (None, 0.5)
    """
    return None if math.isnan(value) else float(value)
