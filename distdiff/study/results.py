"""The results of a study: one entry for each row, and the files that other programs read."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from distdiff.data.images import Leak
from distdiff.data.leaks import leak_counts, sentence
from distdiff.errors import UserError
from distdiff.metrics.base import Metric
from distdiff.study.measures import ACCURACY, OF_EVERY_EXPANSION
from distdiff.study.methods import ORIGINAL, UNGUIDED
from distdiff.study.statistics import PairedDifference, paired_difference

# The other columns of a row in results.json and results.csv.
ROW = (
    "method",
    ACCURACY,
    "accuracy_mean",
    "accuracy_std",
    "num_train",
    "runs",
    "seed",
    "training_seed",
    "seeds",
    "expanded",
    "remarks",
    "judge_accuracy",
)


def measures_of(metrics: Mapping[str, Metric]) -> dict[str, bool | None]:
    """The names of all measures of a study that computes `metrics`, mapped to whether higher values are better.

    None means that neither higher nor lower values are better. Raises `UserError` if a metric has the name of another
    column of the results.
    """
    for name in metrics:
        if name in (*ROW, *OF_EVERY_EXPANSION):
            raise UserError(
                f"measure.metrics={name} is not allowed: results.json uses that name for something else; rename the metric"
            )
    return {name: metric.higher_is_better for name, metric in metrics.items()} | OF_EVERY_EXPANSION


@dataclass
class SeedResult:
    """The result of one method under one study seed.

    `measures` holds the value of each measure that applies to the method, by the measure's name. `remarks` holds
    remarks on some of these measures, by the measure's name too.
    """

    seed: int
    accuracy: float
    num_train: int
    expanded: str | None = None
    measures: dict[str, float] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """The accuracy and the measures, by name."""
        return {"accuracy": self.accuracy, **self.measures}


@dataclass
class MethodResult:
    """The results of one method over all study seeds."""

    method: str
    seeds: list[SeedResult] = field(default_factory=list)

    def values(self, name: str) -> list[Any]:
        return [getattr(result, name) for result in self.seeds]

    def mean(self, name: str) -> float | None:
        """The mean over seeds of the accuracy, or of the measure called `name`.

        Seeds without the measure are left out. The result is None if no seed has the measure.
        """
        values = [figures[name] for result in self.seeds if name in (figures := result.figures())]
        return fmean(values) if values else None

    @property
    def remarks(self) -> dict[str, str]:
        """The remarks of all seeds, by the name of the measure that each remark is on."""
        return {name: remark for result in self.seeds for name, remark in result.remarks.items()}

    @property
    def accuracy_std(self) -> float | None:
        """Sample standard deviation of the accuracy over seeds; None for a single seed."""
        values = self.values("accuracy")
        return stdev(values) if len(values) > 1 else None


@dataclass
class StudyResults:
    """The results of all rows, and the seconds that each stage took. `chosen` is the row that the job's keys choose.

    `found` maps each stage that needed a classifier but trained none to words on where the classifier came from.
    `measures` is the result of `measures_of`. `judge_accuracy` is the fraction of test images that the judge classifies
    correctly. `leaks` are those between the splits of the dataset.
    """

    dataset: str
    split: str
    chosen: str
    rows: list[MethodResult]
    timing: dict[str, float]
    found: dict[str, str] = field(default_factory=dict)
    measures: dict[str, bool | None] = field(default_factory=dict)
    judge_accuracy: float | None = None
    leaks: tuple[Leak, ...] = ()

    def row(self, method: str) -> MethodResult | None:
        return next((row for row in self.rows if row.method == method), None)

    def difference(self, method: str, baseline: str) -> PairedDifference | None:
        """The paired accuracy difference, `method` minus `baseline`; None if a row is missing or both are the same."""
        first, second = self.row(method), self.row(baseline)
        if first is None or second is None or method == baseline:
            return None
        return paired_difference(first.values("accuracy"), second.values("accuracy"))

    def headline(self) -> list[str]:
        """The findings, one sentence each: expansion against the originals, and guidance against no guidance."""
        lines = []
        expanded = self.chosen if self.row(self.chosen) else UNGUIDED
        if difference := self.difference(expanded, ORIGINAL):
            lines.append(_sentence(f"Expansion with {expanded!r}", difference, "the original images alone"))
        if self.chosen != UNGUIDED and (difference := self.difference(self.chosen, UNGUIDED)):
            lines.append(_sentence(f"Guidance {self.chosen!r}", difference, "unguided expansion"))
        return lines

    def objective(self, name: str) -> float | None:
        """What a sweeper may optimise: the mean accuracy, or mean of the measure `name`, of the row that the keys choose.

        None if the study has no such row, or if the row has no such measure.
        """
        row = self.row(self.chosen)
        return None if row is None else row.mean(name)

    def leak_sentence(self) -> str:
        """The test images that are also training images, and what is done about them; empty if there are none."""
        return sentence(self.leaks)

    def summary(self) -> dict[str, float]:
        """The numbers by which the jobs of a sweep are compared."""
        summary: dict[str, float] = {"accuracy_mean": (self.row(self.chosen) or self.rows[-1]).mean("accuracy")}
        for baseline in (ORIGINAL, UNGUIDED):
            if difference := self.difference(self.chosen, baseline):
                summary[f"difference_to_{baseline}"] = difference.mean
        return summary | {f"{row.method}/accuracy_mean": row.mean("accuracy") for row in self.rows}

    def as_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "split": self.split,
            "leaks": leak_counts(self.leaks),
            "judge_accuracy": self.judge_accuracy,
            "headline": self.headline(),
            "summary": self.summary(),
            "rows": [self._row_dict(row) for row in self.rows],
            "timing": {stage: round(seconds, 2) for stage, seconds in self.timing.items()},
            "found": self.found,
        }

    def _row_dict(self, row: MethodResult) -> dict[str, Any]:
        differences = {
            f"difference_to_{baseline}": asdict(difference)
            for baseline in (ORIGINAL, UNGUIDED)
            if (difference := self.difference(row.method, baseline))
        }
        return {
            "method": row.method,
            "accuracy": row.values("accuracy"),
            "accuracy_mean": row.mean("accuracy"),
            "accuracy_std": row.accuracy_std,
            "num_train": row.seeds[0].num_train,
            **{name: row.mean(name) for name in self.measures},
            **({"remarks": row.remarks} if row.remarks else {}),
            **differences,
            "seeds": row.values("seed"),
            "expanded": row.values("expanded"),
        }

    def write(self, directory: Path) -> None:
        """Writes `results.json`, and `results.csv` with one row for each method and seed."""
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False)
        (directory / "results.json").write_text(text + "\n", encoding="utf-8")
        with open(directory / "results.csv", "w", newline="", encoding="utf-8") as file:
            own = [item.name for item in fields(SeedResult) if item.name not in ("measures", "remarks")]
            writer = csv.writer(file)
            writer.writerow(["method", *own, *self.measures])
            for row in self.rows:
                for result in row.seeds:
                    values = [getattr(result, name) for name in own]
                    writer.writerow([row.method, *values, *map(result.measures.get, self.measures)])


def _sentence(subject: str, difference: PairedDifference, baseline: str) -> str:
    if difference.low is None:
        return (
            f"{subject}: {difference.mean:+.3f} accuracy against {baseline}, from a single seed, so nothing is settled."
        )
    interval = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    if not difference.settled:
        return f"{subject} did not measurably help here: {interval} accuracy against {baseline} (95 % interval, paired by seed)."
    verb = "helped" if difference.mean > 0 else "hurt"
    return f"{subject} {verb}: {interval} accuracy against {baseline} (95 % interval, paired by seed)."
