"""The differences between a study's rows that its table shows, and what all of them together allow to conclude."""

from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distdiff.study.bootstrap import bootstrap_means, percentile_interval
from distdiff.study.methods import BASELINES, UNGUIDED, at_factor, best_of
from distdiff.study.runs import MethodResult
from distdiff.study.statistics import ROUNDING, Interval, PairedDifference, holm, paired_difference, simultaneous


@dataclass(frozen=True)
class Comparison:
    """The accuracy of `method` minus that of `baseline`, paired by data seed.

    `difference` has an interval that holds with 95 % by itself. `simultaneous` and `bootstrap` hold with 95 % together
    with those of all other comparisons of the study: a Student t interval, and one of the hierarchical bootstrap.
    `holm` is Holm's adjusted p-value of the t test. Apart from the mean, all are None for a single data seed, and
    what has no spread is None too.
    """

    method: str
    baseline: str
    difference: PairedDifference
    simultaneous: Interval | None = None
    bootstrap: Interval | None = None
    holm: float | None = None

    @property
    def mean(self) -> float:
        return self.difference.mean

    @property
    def settled(self) -> bool:
        """Whether the simultaneous interval excludes zero; False without one."""
        return self.simultaneous is not None and self.simultaneous.excludes_zero

    def as_dict(self) -> dict[str, Any]:
        intervals = {"simultaneous": self.simultaneous, "bootstrap": self.bootstrap}
        found = {name: None if value is None else asdict(value) for name, value in intervals.items()}
        plain = {name: getattr(self.difference, name) for name in ("mean", "low", "high", "p_value")}
        return plain | found | {"holm_p_value": self.holm}


def best_baseline(rows: Sequence[MethodResult]) -> str | None:
    """The row without generated images with which expansion is compared: of several, the best on validation images.

    The first one is taken if validation accuracies are not known. None if there is no such row.
    """
    present = [row for row in rows if row.base in BASELINES]
    return max(present, key=lambda row: row.validation_accuracy or 0.0).method if present else None


def counterpart(row: MethodResult, baseline: str, names: Container[str]) -> str | None:
    """The row among `names` with which `row` is compared: `baseline` with the row's factor if there is one, or else itself.

    A row that is trained with the best settings for its images has, instead of `none`, the row `none_best` if there is
    one. None if there is no such row, or none but `row` itself.
    """
    alike = [best_of(baseline)] if baseline == UNGUIDED and row.best else []
    wanted = [at_factor(base, factor) for base in (*alike, baseline) for factor in (row.factor, None)]
    return next((name for name in wanted if name in names and name != row.method), None)


def pairs(rows: Sequence[MethodResult], baselines: Sequence[str]) -> list[tuple[str, str]]:
    """Every row with each of the `baselines`, as (method, baseline). No two rows are paired twice."""
    found: list[tuple[str, str]] = []
    names = {row.method for row in rows}
    for baseline in baselines:
        for row in rows:
            other = counterpart(row, baseline, names)
            if other is not None and (other, row.method) not in found:
                found.append((row.method, other))
    return found


def compare(rows: Sequence[MethodResult], wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Comparison]:
    """The comparisons of the pairs `wanted`, whose intervals hold simultaneously."""
    by_name = {row.method: row for row in rows}
    accuracies = {name: row.accuracies for name, row in by_name.items()}
    plain = {pair: paired_difference(*(accuracies[name] for name in pair)) for pair in wanted}
    if not wanted or len(next(iter(accuracies.values()))) < 2:
        return {pair: Comparison(*pair, difference) for pair, difference in plain.items()}
    confidence = simultaneous(len(wanted))
    adjusted = holm([difference.p_value for difference in plain.values()])
    resampled = dict(zip(by_name, bootstrap_means(_correct(rows)).T, strict=True))
    return {
        pair: Comparison(
            *pair,
            plain[pair],
            paired_difference(*(accuracies[name] for name in pair), confidence).interval,
            _with_width(percentile_interval(resampled[pair[0]] - resampled[pair[1]], confidence)),
            p_value,
        )
        for pair, p_value in zip(wanted, adjusted, strict=True)
    }


def _with_width(interval: Interval) -> Interval | None:
    return interval if interval.high - interval.low > ROUNDING else None


def _correct(rows: Sequence[MethodResult]) -> np.ndarray:
    """What each classifier labels rightly, (rows, data seeds, training seeds, images).

    If this is not known of every classifier, the accuracies take the place of the images.
    """
    known = [row.correct() for row in rows]
    if any(each is None for each in known) or len({each.shape for each in known}) != 1:
        known = [np.array([[[run.accuracy] for run in runs] for runs in row.of_seeds()]) for row in rows]
    return np.array(known)
