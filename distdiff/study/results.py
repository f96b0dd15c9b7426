"""The results of a study: one entry for each row, and the files that other programs read."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from distdiff.classification.config import LAST
from distdiff.data.images import Leak
from distdiff.data.leaks import leak_counts, sentence
from distdiff.errors import UserError
from distdiff.metrics.base import Metric
from distdiff.study.captions import COMPARED_WITH_BEST, accuracy_captions, design, training_captions
from distdiff.study.comparisons import Comparison, best_baseline, compare, counterpart, pairs
from distdiff.study.findings import OPTIMISTIC, Findings
from distdiff.study.measures import ACCURACY, BETTER, DIRECTIONS, OF_EVERY_EXPANSION, SCORES
from distdiff.study.methods import ORIGINAL, UNGUIDED, at_factor, best_of
from distdiff.study.runs import MethodResult, RunResult
from distdiff.study.statistics import paired_difference
from distdiff.wording import some

NOT_COLUMNS = ("scores", "measures", "remarks", "correct", "views", "measured_by")
COLUMNS = ["method", *(item.name for item in fields(RunResult) if item.name not in NOT_COLUMNS)]  # of results.csv
OF_A_RUN = ("seed", "training_seed", "accuracy", "validation_accuracy", "steps", "classifier", "augmentation")
# The columns of a row in results.json and results.csv besides the measures.
OF_A_ROW = ("factor", "accuracy_mean", "accuracy_std", "runs", "seeds", "judge_accuracy")
ROW = {*COLUMNS, *SCORES, *NOT_COLUMNS, *OF_A_ROW}


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
class StudyResults:
    """The results of all rows, and the seconds that each stage took. `chosen` is the row that the job's keys choose.

    `found` maps each stage that needed a classifier but trained none to words on where the classifier came from.
    `measures` is the result of `measures_of`. `judge_accuracy` is the fraction of test images that the judge classifies
    correctly. `selection` says which weights of each training are tested (`train.selection`), and `best_on_test` are the
    rows whose weights were chosen on test images. `epochs` has the number of epochs of each row that trains for epochs of
    its own images. `may_end_early` says whether trainings may end before the last of their steps. `are_drawn` says whether
    each data seed draws training images of its own. `searched` are the rows whose settings were chosen on validation
    images. `leaks` are those between the splits of the dataset. `made` are the directories of the expanded datasets of which
    this study made images; it found the others finished.
    """

    dataset: str
    split: str
    chosen: str
    rows: list[MethodResult]
    timing: dict[str, float]
    found: dict[str, str] = field(default_factory=dict)
    measures: dict[str, bool | None] = field(default_factory=dict)
    judge_accuracy: float | None = None
    selection: str = LAST
    best_on_test: tuple[str, ...] = ()
    epochs: Mapping[str, int] = field(default_factory=dict)
    may_end_early: bool = False
    are_drawn: bool = True
    searched: tuple[str, ...] = ()
    leaks: tuple[Leak, ...] = ()
    made: tuple[str, ...] = ()

    def row(self, method: str | None) -> MethodResult | None:
        return next((row for row in self.rows if row.method == method), None)

    @property
    def scores(self) -> list[str]:
        """The names of what is known of each classifier's test besides its accuracy."""
        return list(dict.fromkeys(name for row in self.rows for run in row.runs for name in run.scores))

    @property
    def baselines(self) -> list[str]:
        """The rows with which the table compares all others: the best one without generated images, and `UNGUIDED`.

        `UNGUIDED` stands for the row of each factor of `study.factors`, and for `none_best` where that is compared
        (`counterpart`). If only `none_best` is a row, it takes its place.
        """
        bases = {row.base for row in self.rows}
        unguided = next((name for name in (UNGUIDED, best_of(UNGUIDED)) if name in bases), None)
        return [name for name in (best_baseline(self.rows), unguided) if name is not None]

    @property
    def factors(self) -> list[int]:
        """The factors of `study.factors` in ascending order; empty without these."""
        return sorted({row.factor for row in self.rows if row.factor is not None})

    def against(self, row: MethodResult, baseline: str) -> Comparison | None:
        """The comparison of `row` with one of `baselines`; None if there is none."""
        return self.comparisons.get((row.method, self._counterpart(row, baseline)))

    def _counterpart(self, row: MethodResult, baseline: str) -> str | None:
        return counterpart(row, baseline, [other.method for other in self.rows])

    @cached_property
    def comparisons(self) -> dict[tuple[str, str], Comparison]:
        """The differences that the table shows, by (method, baseline)."""
        return compare(self.rows, pairs(self.rows, self.baselines))

    @property
    def design(self) -> str:
        """What varies between a row's runs, in words."""
        return design(self.rows, self.are_drawn)

    def captions(self) -> list[str]:
        """What the numbers in the table of accuracies are, one sentence each."""
        averaged = accuracy_captions(self.rows, self.are_drawn, len(self.comparisons))
        if UNGUIDED in self.baselines and any(
            self._is_best_unguided(each.baseline) for each in self.comparisons.values()
        ):
            averaged.append(COMPARED_WITH_BEST)
        return [*averaged, *training_captions(self.rows, self.searched, self.split, self.epochs, self.may_end_early)]

    def _is_best_unguided(self, name: str) -> bool:
        return self.row(name).base == best_of(UNGUIDED)

    def headline(self) -> list[str]:
        """The findings, one sentence each: expansion against the best baseline, and guidance against no guidance."""
        rows = {row.method: row for row in self.rows}
        unguided = at_factor(UNGUIDED, max(self.factors, default=None))
        findings = list(Findings(rows, self.comparisons, self.chosen, unguided, self.searched, self.design))
        if not self.best_on_test:
            return findings
        of_all = len(self.best_on_test) == len(self.rows)
        return [f"Accuracies {'' if of_all else f'of {some(self.best_on_test)} '}{OPTIMISTIC}", *findings]

    def repeats(self, row: MethodResult) -> bool:
        """Whether the row trains on the images of another row, whose measures are then the same."""
        other = self.row(row.images) if row.best else None
        return other is not None and [run.measures for run in other.runs] == [run.measures for run in row.runs]

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
        """The numbers by which the jobs of a sweep are compared.

        `accuracy` is what a job returns for `study.objective=accuracy`, and by this name W&B's sweeps optimise it.
        """
        row = self.row(self.chosen)
        summary: dict[str, float] = {} if row is None else {ACCURACY: row.mean(ACCURACY)}
        summary["accuracy_mean"] = (row or self.rows[-1]).mean(ACCURACY)
        for name in dict.fromkeys([ORIGINAL, *self.baselines]):
            baseline = None if row is None else self.row(self._counterpart(row, name))
            if baseline is not None and baseline is not row:
                summary[f"difference_to_{name}"] = paired_difference(row.accuracies, baseline.accuracies).mean
        return summary | {f"{row.method}/accuracy_mean": row.mean("accuracy") for row in self.rows}

    def as_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "split": self.split,
            "selection": self.selection,
            "leaks": leak_counts(self.leaks),
            "judge_accuracy": self.judge_accuracy,
            BETTER: {name: DIRECTIONS[name] for name in (ACCURACY, *self.scores)} | self.measures,
            "chosen": self.chosen,
            "are_drawn": self.are_drawn,
            "headline": self.headline(),
            "captions": self.captions(),
            "summary": self.summary(),
            "rows": [self._row_dict(row) for row in self.rows],
            "timing": {stage: round(seconds, 2) for stage, seconds in self.timing.items()},
            "found": self.found,
        }

    def _row_dict(self, row: MethodResult) -> dict[str, Any]:
        of_row = [comparison for comparison in self.comparisons.values() if comparison.method == row.method]
        return {
            "method": row.method,
            **({"factor": row.factor} if self.factors else {}),
            "accuracy": row.accuracies,
            "accuracy_mean": row.mean("accuracy"),
            "accuracy_std": row.accuracy_std,
            "runs": [{name: getattr(run, name) for name in OF_A_RUN} | run.scores for run in row.runs],
            "num_train": row.runs[0].num_train,
            **{name: row.mean(name) for name in (*self.scores, *self.measures)},
            **({"remarks": row.remarks} if row.remarks else {}),
            **({"measures": row.views} if row.views else {}),
            **{f"difference_to_{comparison.baseline}": comparison.as_dict() for comparison in of_row},
            "seeds": row.values("seed"),
            "expanded": row.values("expanded"),
        }

    def write(self, directory: Path) -> None:
        """Writes `results.json`, and `results.csv` with one row for each method, data seed and training seed."""
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False)
        (directory / "results.json").write_text(text + "\n", encoding="utf-8")
        with open(directory / "results.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            further = [*self.scores, *self.measures]
            writer.writerow([*COLUMNS, *further, *(["factor"] if self.factors else [])])
            for row in self.rows:
                for run in row.runs:
                    values = [getattr(run, name) for name in COLUMNS[1:]]
                    own = [row.factor] if self.factors else []
                    writer.writerow([row.method, *values, *map(run.figures().get, further), *own])
