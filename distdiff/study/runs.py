"""The result of a single classifier of a study, and of all classifiers of a row."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean, stdev
from typing import Any

import numpy as np

from distdiff.study.methods import AT, BEST, at_factor


@dataclass
class RunResult:
    """The result of one row under one data seed and one training seed.

    `training_seed` counts from 0 under each data seed. `steps`, `classifier` and `augmentation` say how the classifier
    was trained, and `validation_accuracy` is None if validation images were not needed. `scores` holds what else was found
    when the classifier was tested, by its name in `measures.SCORES`. `measures` holds the value of each measure that applies to
    the row's images, by the measure's name. `remarks` holds remarks on some of these
    measures, by the measure's name too. `views` holds the values of the metrics in all features, against all sets of real
    images and for each class (`Measured.as_dict`), and `measured_by` says which metrics in which features these are.
    `correct` (n,) says of each test image whether the classifier labels it rightly.
    """

    seed: int
    accuracy: float
    num_train: int
    training_seed: int = 0
    steps: int | None = None
    classifier: str | None = None
    augmentation: str | None = None
    validation_accuracy: float | None = None
    expanded: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    correct: np.ndarray | None = None
    views: dict[str, Any] = field(default_factory=dict)
    measured_by: str | None = None

    def figures(self) -> dict[str, float]:
        """The accuracy, the other scores and the measures, by name."""
        return {"accuracy": self.accuracy, **self.scores, **self.measures}


@dataclass
class MethodResult:
    """The results of one row under all data seeds. The runs of a data seed follow each other.

    `factor` is the row's factor of `study.factors`, None without these; it ends the name `method`. `best` is True if the
    row is trained with the settings that are best for its images.
    """

    method: str
    runs: list[RunResult] = field(default_factory=list)
    factor: int | None = None
    best: bool = False

    @property
    def base(self) -> str:
        """The row's name without the factor."""
        return self.method if self.factor is None else self.method.removesuffix(f"{AT}{self.factor}")

    @property
    def images(self) -> str:
        """The name of the row whose images this row trains on: its own, without `_best`."""
        return at_factor(self.base.removesuffix(BEST), self.factor) if self.best else self.method

    def of_seeds(self) -> list[list[RunResult]]:
        """The runs of each data seed."""
        return [list(runs) for _, runs in groupby(self.runs, key=lambda run: run.seed)]

    def values(self, name: str) -> list[Any]:
        """A value for each data seed that all of its runs share, such as `seed` and `expanded`."""
        return [getattr(runs[0], name) for runs in self.of_seeds()]

    @property
    def accuracies(self) -> list[float]:
        """The accuracy under each data seed: the mean over its training seeds."""
        return [fmean(run.accuracy for run in runs) for runs in self.of_seeds()]

    def seed_means(self, name: str) -> list[float]:
        """The accuracy, another score or the measure called `name` under each data seed: the mean over its training seeds.

        Seeds without it are left out.
        """
        of_seeds = [[run.figures()[name] for run in runs if name in run.figures()] for runs in self.of_seeds()]
        return [fmean(values) for values in of_seeds if values]

    def mean(self, name: str) -> float | None:
        """The mean over data seeds of what `seed_means` gives; None if no seed has a value."""
        values = self.seed_means(name)
        return fmean(values) if values else None

    @property
    def remarks(self) -> dict[str, str]:
        """The remarks of all seeds, by the name of the measure that each remark is on."""
        return {name: remark for run in self.runs for name, remark in run.remarks.items()}

    @property
    def views(self) -> dict[str, Any]:
        """The means over data seeds of the values of the metrics in all features; empty if there are none.

        An interval is the mean of those of all seeds that have the value, or is not there if one of them has none.
        """
        found = [runs[0].views for runs in self.of_seeds() if runs[0].views]
        if not found:
            return {}
        means = mean_of(found)
        for view, sets in means.items():
            for name, mean in sets.items():
                _leave_out_partial_intervals(mean, [seed[view][name] for seed in found if name in seed.get(view, ())])
        return means

    @property
    def accuracy_std(self) -> float | None:
        """Sample standard deviation of the accuracy over data seeds; None for a single seed."""
        values = self.accuracies
        return stdev(values) if len(values) > 1 else None

    @property
    def validation_accuracy(self) -> float | None:
        """The mean accuracy on validation images; None if these were not needed."""
        values = [run.validation_accuracy for run in self.runs]
        return None if not values or None in values else fmean(values)

    def correct(self) -> np.ndarray | None:
        """Which image each classifier labels rightly, (data seeds, training seeds, images); None if it is not known."""
        runs = self.of_seeds()
        known = [run.correct for run in self.runs]
        if any(each is None for each in known) or len({len(each) for each in known}) != 1:
            return None
        return np.array([[run.correct for run in of_seed] for of_seed in runs])


def differ(row: MethodResult, other: MethodResult, settings: Sequence[str]) -> bool:
    """Whether two rows were trained with different `settings`, such as `classifier`, in any run for which both are known."""
    for one, two in zip(row.runs, other.runs, strict=True):
        values = [(getattr(one, name), getattr(two, name)) for name in settings]
        if any(None not in pair and pair[0] != pair[1] for pair in values):
            return True
    return False


def mean_of(values: list[Any]) -> Any:
    """The mean of numbers, of each entry of lists and, by name, of mappings; the last of texts. None is left out.

    >>> mean_of([{"coverage": 0.5, "recall": None}, {"coverage": 1.0, "recall": 0.25}, {"coverage": 0.75}])
    {'coverage': 0.75, 'recall': 0.25}
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    if all(isinstance(value, dict) for value in known):
        names = dict.fromkeys(name for value in known for name in value)
        return {name: mean_of([value.get(name) for value in known]) for name in names}
    if all(isinstance(value, list) for value in known):
        return [mean_of(list(entries)) for entries in zip(*known, strict=True)]
    if all(isinstance(value, str) for value in known):
        return known[-1]
    return fmean(known)


def _leave_out_partial_intervals(mean: dict[str, Any], of_seeds: list[dict[str, Any]]) -> None:
    """Removes from `mean` the intervals that a seed with the same value does not have: the mean value has none then."""
    for name in list(mean.get("intervals", ())):
        if any(seed["values"].get(name) is not None and name not in seed.get("intervals", ()) for seed in of_seeds):
            del mean["intervals"][name]
    if not mean.get("intervals", True):
        del mean["intervals"]
    for name, of_class in mean.get("classes", {}).items():
        _leave_out_partial_intervals(
            of_class, [seed["classes"][name] for seed in of_seeds if name in seed.get("classes", ())]
        )
