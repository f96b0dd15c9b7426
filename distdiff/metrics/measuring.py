"""Measures images with the metrics that `measure.metrics` names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from omegaconf import DictConfig

from distdiff.data.images import LabelledImages
from distdiff.errors import UserError
from distdiff.keys import TARGET, build
from distdiff.metrics.base import Features, Metric
from distdiff.metrics.config import LEAST_ACCURACY
from distdiff.metrics.judge import Judge
from distdiff.metrics.looks import Looks, looks
from distdiff.metrics.reference import Reference, reference, remarks


def load_metrics(config: DictConfig) -> dict[str, Metric]:
    """The metrics that `measure.metrics` names, by name. A metric that is named twice is loaded once.

    The keys of each metric are in `options.metric`.
    """
    metrics = {}
    for name in config.measure.metrics:
        option = config.options.metric[name]
        metrics[name] = build(option)
        if not isinstance(metrics[name], Metric) or not hasattr(metrics[name], "higher_is_better"):
            raise UserError(
                f"metric={name}: {option[TARGET]} is no metric: it has to be a subclass of distdiff.metrics.base.Metric "
                "that sets higher_is_better"
            )
    return metrics


def with_doubt(made: Mapping[str, str], metrics: Iterable[str], accuracy: float | None) -> dict[str, str]:
    """The remarks `made`, by metric. If the judge's accuracy is too low, each of the `metrics` has one that says so.

    >>> with_doubt({}, ["coverage"], 0.3)
    {'coverage': 'the judge labels only 30.0% of held-out images rightly (below 60%), so this value means little'}
    """
    if accuracy is None or accuracy >= LEAST_ACCURACY:
        return dict(made)
    doubt = (
        f"the judge labels only {accuracy:.1%} of held-out images rightly (below {LEAST_ACCURACY:.0%}), so this value "
        "means little"
    )
    return {name: "; ".join(filter(None, (made.get(name), doubt))) for name in metrics}


@dataclass(frozen=True)
class Measured:
    """The result of measuring a set of images.

    `values` holds the value of each metric, by the metric's name. `remarks` holds remarks on some of these values
    (`Metric.remark`), also by name.
    """

    values: dict[str, float]
    remarks: dict[str, str]


class Measurer:
    """Compares images with the `real` images by each of the `metrics`, using the features of `judge`.

    The features of the real and of the held-out images are computed only once, when they are first needed. If
    `held_out` is given, and the judge's accuracy on these images is below `LEAST_ACCURACY`, each value has a remark that
    says so.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        judge: Judge,
        real: LabelledImages,
        held_out: LabelledImages | None = None,
    ) -> None:
        self.metrics = metrics
        self.judge = judge
        self.images = real
        self.held_out = held_out
        self._held_out: tuple[LabelledImages, Features] | None = None

    @cached_property
    def real(self) -> Features:
        """The judge's view of the real images, computed when first needed."""
        return self.judge(self.images)

    def __call__(self, generated: LabelledImages) -> dict[str, float]:
        """The value of each metric for the images `generated`, by the metric's name."""
        return self.measured(generated).values

    def measured(self, generated: LabelledImages) -> Measured:
        """The values of all metrics for the images `generated`, with remarks on these values."""
        seen = self.judge(generated)
        values = {name: float(metric(self.real, seen)) for name, metric in self.metrics.items()}
        return Measured(values, with_doubt(remarks(self.metrics, self.real, seen), self.metrics, self._accuracy()))

    def look(self, images: LabelledImages) -> Looks:
        """What the judge sees in each of `images`; `Looks.nearest` are positions in `self.images`."""
        return looks(self.real, self.judge(images))

    def reference(self, held_out: LabelledImages) -> Reference:
        """The baseline values, which result from comparing real images with real images; `held_out` may be empty."""
        return reference(self.metrics, self.real, self._seen_held_out(held_out))

    def judge_accuracy(self, held_out: LabelledImages) -> float | None:
        """The judge's accuracy on `held_out`, images on which the judge was not trained; None if `held_out` is empty.

        Label consistency is only as reliable as this accuracy.
        """
        seen = self._seen_held_out(held_out)
        return None if seen is None else seen.accuracy

    def _accuracy(self) -> float | None:
        return None if self.held_out is None else self.judge_accuracy(self.held_out)

    def _seen_held_out(self, held_out: LabelledImages) -> Features | None:
        if not len(held_out):
            return None
        if self._held_out is None or self._held_out[0] is not held_out:
            self._held_out = (held_out, self.judge(held_out))
        return self._held_out[1]
