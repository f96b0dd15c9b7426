"""Measures images with the metrics that `measure.metrics` names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from omegaconf import DictConfig

from distdiff.data.images import LabelledImages
from distdiff.errors import UserError
from distdiff.keys import TARGET, build
from distdiff.metrics.base import Features, Metric
from distdiff.metrics.comparing import Compared, compare
from distdiff.metrics.config import GUIDE, HELD_OUT, JUDGE, LEAST_ACCURACY, TRAINING
from distdiff.metrics.judge import Judge
from distdiff.metrics.looks import Looks, looks
from distdiff.metrics.reference import Reference, reference
from distdiff.metrics.views import PixelView, View


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
    """The remarks `made`, by metric, and if the judge's accuracy is too low, one that says so on each of the `metrics`.

    >>> with_doubt({}, ["coverage"], 0.3)
    {'coverage': 'the judge labels only 30.0% of held-out images rightly (below 60%), so this value means little'}
    """
    if accuracy is None or accuracy >= LEAST_ACCURACY:
        return dict(made)
    doubt = (
        f"the judge labels only {accuracy:.1%} of held-out images rightly (below {LEAST_ACCURACY:.0%}), so this value "
        "means little"
    )
    return dict(made) | {name: "; ".join(filter(None, (made.get(name), doubt))) for name in metrics}


@dataclass(frozen=True)
class Measured:
    """The result of measuring a set of images.

    `values` holds the value of each metric, by the metric's name, in the first of the views and against the training
    images; it is None if the images have none. `remarks` holds remarks on some of these values, also by name. `views`
    holds the values in all views, each with the remarks on it, by (view, set of real images).
    """

    values: dict[str, float | None]
    remarks: dict[str, str]
    views: dict[str, dict[str, Compared]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The values in all views as plain Python objects for JSON."""
        return {view: {name: found.as_dict() for name, found in sets.items()} for view, sets in self.views.items()}


class Measurer:
    """Compares images with the `real` images by each of the `metrics`, using the features of `judge`.

    The features of the real and of the held-out images are computed only once, when they are first needed. If
    `held_out` is given, images are compared with these too, and if the judge's accuracy on them is below
    `LEAST_ACCURACY`, each value that rests on the judge has a remark that says so. `features` are the names of the views
    in which images are compared (`FEATURES`), of which the first is that of the values by plain name. Intervals are
    computed from `bootstrap` resamples; 0 computes none.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        judge: Judge,
        real: LabelledImages,
        held_out: LabelledImages | None = None,
        features: Sequence[str] = (JUDGE,),
        bootstrap: int = 0,
    ) -> None:
        self.metrics = metrics
        self.judge = judge
        self.images = real
        self.held_out = held_out
        self.features = tuple(dict.fromkeys(features))
        self.bootstrap = bootstrap
        self._guide: View | None = None
        self._views: dict[str, tuple[View | None, LabelledImages, Features]] = {}
        self._held_out: tuple[LabelledImages, Features] | None = None

    @cached_property
    def real(self) -> Features:
        """The judge's view of the real images, computed when first needed."""
        return self.judge(self.images)

    def guided_by(self, guide: View | None) -> None:
        """Says which encoder's features `guide` stands for from now on."""
        self._guide = guide

    def __call__(self, generated: LabelledImages) -> dict[str, float | None]:
        """The value of each metric for the images `generated`, by the metric's name."""
        (first, *_), seen = self.features, self.judge(generated)
        real, generated_view = (
            self._in_view(first, TRAINING, self.images, self.real),
            self._view(first, generated, seen),
        )
        return compare(self.metrics, real, generated_view).values

    def measured(self, generated: LabelledImages) -> Measured:
        """The values of all metrics for the images `generated`, in all views, with the remarks on them."""
        seen = self.judge(generated)
        sets = {TRAINING: (self.images, self.real)}
        if self.held_out is not None and (held_out := self._seen_held_out(self.held_out)) is not None:
            sets[HELD_OUT] = (self.held_out, held_out)
        views: dict[str, dict[str, Compared]] = {}
        for view in self.features:
            own = self._view(view, generated, seen)
            views[view] = {
                name: self._doubted(
                    view,
                    compare(self.metrics, self._in_view(view, name, *real), own, generated.class_names, self.bootstrap),
                )
                for name, real in sets.items()
            }
        plain = views[self.features[0]][TRAINING]
        return Measured(plain.values, plain.remarks, views)

    def _doubted(self, view: str, found: Compared) -> Compared:
        """`found` with a remark on each value that rests on the judge, if this is too inaccurate."""
        judged = [name for name, metric in self.metrics.items() if view == JUDGE or metric.needs_labels]
        known = [name for name in judged if found.values[name] is not None]
        return replace(found, remarks=with_doubt(found.remarks, known, self._accuracy()))

    def look(self, images: LabelledImages) -> Looks:
        """What the judge sees in each of `images`; `Looks.nearest` are positions in `self.images`."""
        return looks(self.real, self.judge(images))

    def reference(self, held_out: LabelledImages) -> Reference:
        """The baseline values, which result from comparing real images with real images; `held_out` may be empty."""
        first = self.features[0]
        seen = self._seen_held_out(held_out)
        own = seen and self._in_view(first, HELD_OUT, held_out, seen)
        return reference(self.metrics, self._in_view(first, TRAINING, self.images, self.real), own)

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

    def _view(self, name: str, images: LabelledImages, seen: Features) -> Features:
        """The features of `images` in a view, with the labels that the judge predicts."""
        if name == JUDGE:
            return seen
        view = self._guide if name == GUIDE else PixelView(self.judge.fit)
        return Features(view(images), seen.labels, seen.predicted)

    def _in_view(self, name: str, kept_as: str, images: LabelledImages, seen: Features) -> Features:
        """The same for real images, which is kept until the view or the images change."""
        if name == JUDGE:
            return seen
        guide, key = self._guide if name == GUIDE else None, f"{name}/{kept_as}"
        known = self._views.get(key)
        if known is None or known[0] is not guide or known[1] is not images:
            self._views[key] = known = (guide, images, self._view(name, images, seen))
        return known[2]
