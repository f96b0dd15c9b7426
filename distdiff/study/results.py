"""What a study found, as rows a method and as the files that other programs read."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from distdiff.study.methods import ORIGINAL, UNGUIDED
from distdiff.study.statistics import PairedDifference, paired_difference

# What is measured of an expanded dataset; None for a method that has none.
MEASURES = (
    "frechet_distance",
    "label_consistency",
    "coverage",
    "energy_before",
    "energy_after",
    "images_per_second",
)


@dataclass
class SeedResult:
    """One method under one study seed; what does not apply to a method is None."""

    seed: int
    accuracy: float
    num_train: int
    expanded: str | None = None
    frechet_distance: float | None = None
    label_consistency: float | None = None
    coverage: float | None = None
    energy_before: float | None = None
    energy_after: float | None = None
    images_per_second: float | None = None


@dataclass
class MethodResult:
    """One method over all study seeds."""

    method: str
    seeds: list[SeedResult] = field(default_factory=list)

    def values(self, name: str) -> list[Any]:
        return [getattr(result, name) for result in self.seeds]

    def mean(self, name: str) -> float | None:
        values = [value for value in self.values(name) if value is not None]
        return fmean(values) if values else None

    @property
    def accuracy_std(self) -> float:
        """Sample standard deviation over seeds; 0 for a single seed."""
        values = self.values("accuracy")
        return stdev(values) if len(values) > 1 else 0.0


@dataclass
class StudyResults:
    """Every method, the method that the `guidance` keys choose, and what each stage took.

    `found` says of a stage where its result was from, if it was not made in it.
    """

    dataset: str
    split: str
    chosen: str
    rows: list[MethodResult]
    timing: dict[str, float]
    found: dict[str, str] = field(default_factory=dict)

    def row(self, method: str) -> MethodResult | None:
        return next((row for row in self.rows if row.method == method), None)

    def difference(self, method: str, baseline: str) -> PairedDifference | None:
        """Paired accuracy difference, None where either row is missing or they are the same."""
        first, second = self.row(method), self.row(baseline)
        if first is None or second is None or method == baseline:
            return None
        return paired_difference(first.values("accuracy"), second.values("accuracy"))

    def headline(self) -> list[str]:
        """What was found, a sentence each: expansion against the originals, guidance against no guidance."""
        lines = []
        expanded = self.chosen if self.row(self.chosen) else UNGUIDED
        if difference := self.difference(expanded, ORIGINAL):
            lines.append(_sentence(f"Expansion with {expanded!r}", difference, "the original images alone"))
        if self.chosen != UNGUIDED and (difference := self.difference(self.chosen, UNGUIDED)):
            lines.append(_sentence(f"Guidance {self.chosen!r}", difference, "unguided expansion"))
        return lines

    def summary(self) -> dict[str, float]:
        """The figures that jobs of a sweep are compared by."""
        summary: dict[str, float] = {"accuracy_mean": (self.row(self.chosen) or self.rows[-1]).mean("accuracy")}
        for baseline in (ORIGINAL, UNGUIDED):
            if difference := self.difference(self.chosen, baseline):
                summary[f"difference_to_{baseline}"] = difference.mean
        return summary | {f"{row.method}/accuracy_mean": row.mean("accuracy") for row in self.rows}

    def as_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "split": self.split,
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
            **{name: row.mean(name) for name in MEASURES},
            **differences,
            "seeds": row.values("seed"),
            "expanded": row.values("expanded"),
        }

    def write(self, directory: Path) -> None:
        """`results.json`, and `results.csv` with a row a method and seed."""
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False)
        (directory / "results.json").write_text(text + "\n", encoding="utf-8")
        with open(directory / "results.csv", "w", newline="", encoding="utf-8") as file:
            lines: Sequence[dict[str, Any]] = [
                {"method": row.method, **asdict(result)} for row in self.rows for result in row.seeds
            ]
            writer = csv.DictWriter(file, fieldnames=list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)


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
