"""Measures images by the metrics that `measure.metrics` names."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from omegaconf import DictConfig

from distdiff.data.images import LabelledImages
from distdiff.errors import UserError
from distdiff.keys import TARGET, build
from distdiff.metrics.base import Features, Metric
from distdiff.metrics.judge import Judge
from distdiff.metrics.reference import Reference, reference, remarks


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


@dataclass(frozen=True)
class Measured:
    """Each metric's value by its name, and a remark by the name of those whose value needs one (`Metric.remark`)."""

    values: dict[str, float]
    remarks: dict[str, str]


class Measurer:
    """Compares images with the `real` ones by each of `metrics`, as `judge` sees them.

    The features of the real and of the held-out images are computed when first needed, once for all comparisons.
    """

    def __init__(self, metrics: Mapping[str, Metric], judge: Judge, real: LabelledImages) -> None:
        self.metrics = metrics
        self.judge = judge
        self.images = real
        self._held_out: tuple[LabelledImages, Features] | None = None

    @cached_property
    def real(self) -> Features:
        """The real images, looked at when first needed."""
        return self.judge(self.images)

    def __call__(self, generated: LabelledImages) -> dict[str, float]:
        """Each metric's value, by its name."""
        return self.measured(generated).values

    def measured(self, generated: LabelledImages) -> Measured:
        """Each metric's value, and what has to be said of it."""
        seen = self.judge(generated)
        values = {name: float(metric(self.real, seen)) for name, metric in self.metrics.items()}
        return Measured(values, remarks(self.metrics, self.real, seen))

    def reference(self, held_out: LabelledImages) -> Reference:
        """The baseline values: the same metrics among real images, of which `held_out` may be none."""
        return reference(self.metrics, self.real, self._seen_held_out(held_out))

    def judge_accuracy(self, held_out: LabelledImages) -> float | None:
        """The fraction of `held_out`, none of which the judge was trained on, that it labels rightly; None without images.

        What label consistency is worth hangs on it.
        """
        seen = self._seen_held_out(held_out)
        return None if seen is None else seen.accuracy

    def _seen_held_out(self, held_out: LabelledImages) -> Features | None:
        if not len(held_out):
            return None
        if self._held_out is None or self._held_out[0] is not held_out:
            self._held_out = (held_out, self.judge(held_out))
        return self._held_out[1]
