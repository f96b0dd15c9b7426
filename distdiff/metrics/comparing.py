"""Compares generated with real images by several metrics: all images, and those of each class."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from distdiff.metrics.base import Features, Metric
from distdiff.metrics.intervals import resamples


@dataclass(frozen=True)
class Compared:
    """The values of metrics by name, their intervals and remarks if there are any, and the same for each class by its name.

    A value is None if the images have none; a remark then says why.
    """

    values: dict[str, float | None]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    classes: dict[str, "Compared"] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain Python objects for JSON; `intervals`, `remarks` and `classes` only if there are any."""
        found: dict[str, Any] = {"values": self.values}
        if self.intervals:
            found["intervals"] = {name: list(ends) for name, ends in self.intervals.items()}
        if self.remarks:
            found["remarks"] = self.remarks
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
    for label in generated.classes if class_names and metrics else ():
        first, second = real.of_class(label), generated.of_class(label)
        if min(len(first), len(second)) > 1:
            known = {name: metric for name, metric in metrics.items() if remark_on(metric, first, second) is None}
            own = None if counts is None else counts[:, generated.labels.numpy() == label]
            classes[class_names[label]] = _compared(known, first, second, own)
    return replace(_compared(metrics, real, generated, counts), classes=classes)


def _compared(
    metrics: Mapping[str, Metric], real: Features, generated: Features, counts: np.ndarray | None
) -> Compared:
    values, intervals, remarks = {}, {}, {}
    for name, metric in metrics.items():
        value = values[name] = value_of(metric, real, generated)
        if (remark := remark_on(metric, real, generated)) is not None:
            remarks[name] = remark
        if counts is not None and value is not None:
            ends = metric.interval(value, real, generated, counts)
            intervals |= {} if ends is None else {name: ends}
    return Compared(values, intervals, remarks)


def value_of(metric: Metric, real: Features, generated: Features) -> float | None:
    """The value of a metric as a plain number; None if the images have none."""
    if metric.lacks(real, generated) is not None:
        return None
    value = float(metric(real, generated))
    return None if math.isnan(value) else value


def remark_on(metric: Metric, real: Features, generated: Features) -> str | None:
    """Why these images have no value or, if they have one, the metric's remark on it; None if there is nothing to say."""
    return metric.lacks(real, generated) or metric.remark(real, generated)
