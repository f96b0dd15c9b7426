"""Baseline values of metrics, which result from comparing real images with other real images."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from distdiff.metrics.base import Features, Metric
from distdiff.metrics.comparing import remark_on, value_of
from distdiff.metrics.frechet_distance import INSTEAD

FRECHET = "frechet_distance"
SEED = 0


@dataclass(frozen=True)
class Reference:
    """The baseline value of each metric, by the metric's name. The value compares two sets of real images.

    For a metric that needs no labels, the two sets are random halves, of `num_half` images each, of the real images on
    which the judge was trained. For a metric that needs labels, `num_held_out` held-out images, on which the
    judge was not trained, take the place of generated images. A value is None if there are too few images. Metrics
    depend on the number of images, so a baseline value is directly comparable only with the value for `num_half`
    generated images. `remarks` holds remarks (`Metric.remark`) on some of the baseline values, also by name.
    """

    values: dict[str, float | None]
    num_half: int
    num_held_out: int
    remarks: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The baseline values by name, the image counts and any remarks, as plain Python objects for JSON."""
        counts = {"num_half": self.num_half, "num_held_out": self.num_held_out}
        return {**self.values, **counts, **({"remarks": self.remarks} if self.remarks else {})}


def reference(metrics: Mapping[str, Metric], real: Features, held_out: Features | None) -> Reference:
    """The baseline values of `metrics`; `held_out` is None if there are no held-out images."""
    shuffled = torch.randperm(len(real), generator=torch.Generator().manual_seed(SEED))
    half = len(real) // 2
    first, second = real.select(shuffled[:half]), real.select(shuffled[half : 2 * half])

    def compared(metric: Metric) -> tuple[Features, Features] | None:
        if metric.needs_labels:
            return None if held_out is None else (real, held_out)
        return (first, second) if half > 1 else None

    pairs = {name: compared(metric) for name, metric in metrics.items()}
    values = {name: None if pair is None else value_of(metrics[name], *pair) for name, pair in pairs.items()}
    remarked = {name: remark_on(metrics[name], *pair) for name, pair in pairs.items() if pair is not None}
    return Reference(
        values,
        num_half=half,
        num_held_out=0 if held_out is None else len(held_out),
        remarks={name: remark for name, remark in remarked.items() if remark is not None},
    )


def in_order(names: Iterable[str], remarked: Container[str]) -> list[str]:
    """The metrics in the order in which tables show them.

    Where the Frechet distance has a remark, because there are few images, the kernel distance comes before it.

    >>> in_order(["frechet_distance", "coverage", "kernel_distance"], {"frechet_distance": "few images"})
    ['kernel_distance', 'frechet_distance', 'coverage']
    """
    ordered = list(names)
    if FRECHET in remarked and FRECHET in ordered and INSTEAD in ordered:
        ordered.remove(INSTEAD)
        ordered.insert(ordered.index(FRECHET), INSTEAD)
    return ordered
