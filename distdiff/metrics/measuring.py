"""Measures images by the metrics that `measure.metrics` names."""

from collections.abc import Mapping
from functools import cached_property

from omegaconf import DictConfig

from distdiff.data.images import LabelledImages
from distdiff.errors import UserError
from distdiff.keys import TARGET, build
from distdiff.metrics.base import Features, Metric
from distdiff.metrics.judge import Judge
from distdiff.metrics.reference import Reference, reference


def load_metrics(config: DictConfig) -> dict[str, Metric]:
    """The metrics that `measure.metrics` names, each once, in that order; their keys are in `options.metric`."""
    metrics = {}
    for name in config.measure.metrics:
        option = config.options.metric[name]
        metrics[name] = build(option)
        if not isinstance(metrics[name], Metric) or not hasattr(metrics[name], "higher_is_better"):
            raise UserError(
                f"metric={name}: {option[TARGET]} is no metric: a class below distdiff.metrics.base.Metric that sets "
                "higher_is_better"
            )
    return metrics


class Measurer:
    """Compares images with the `real` ones by each of `metrics`, as `judge` sees them."""

    def __init__(self, metrics: Mapping[str, Metric], judge: Judge, real: LabelledImages) -> None:
        self.metrics = metrics
        self.judge = judge
        self.images = real

    @cached_property
    def real(self) -> Features:
        """The real images, looked at when first needed."""
        return self.judge(self.images)

    def __call__(self, generated: LabelledImages) -> dict[str, float]:
        """Each metric's value, by its name."""
        seen = self.judge(generated)
        return {name: float(metric(self.real, seen)) for name, metric in self.metrics.items()}

    def reference(self, held_out: LabelledImages) -> Reference:
        """The baseline values: the same metrics among real images, of which `held_out` may be none."""
        return reference(self.metrics, self.real, self.judge(held_out) if len(held_out) else None)
