"""Reads what a multirun's jobs found: the values of each job's rows by data seed."""

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from distdiff.study.measures import BETTER
from distdiff.study.methods import AT, BEST, ORIGINAL, UNGUIDED, best_of
from distdiff.tracking.sweep import FOLD, RESULTS, SweptJob, contents_of

LINES = "results.csv"
NOT_VALUES = ("method", "seed", "training_seed", "steps", "classifier", "augmentation", "expanded", "factor")

# What a value is repeated over: the fold, which is empty without `dataset.fold`, and the data seed.
Unit = tuple[str, int]
Values = Mapping[Unit, float]
Row = Mapping[str, Values]  # the values of a row by name: `accuracy`, and the measures


@dataclass(frozen=True)
class JobResults:
    """What a job that succeeded has found.

    `chosen` are the values of the row that the job's keys choose; without a study they are the job's figures. `unguided`
    and `original` are those of the rows with these meanings, empty if the study has none. `images` and `unguided_images`
    are the directories of the expanded datasets. `only_means` says that values by data seed are not known. `directions`
    says of values, by name, whether higher is better; None means neither. `are_drawn` says whether each data seed draws
    training images of its own; None if that is not known.
    """

    job: SweptJob
    dataset: str = ""
    split: str | None = None
    chosen: Row = field(default_factory=dict)
    unguided: Row = field(default_factory=dict)
    original: Row = field(default_factory=dict)
    images: Mapping[Unit, Path] = field(default_factory=dict)
    unguided_images: Mapping[Unit, Path] = field(default_factory=dict)
    only_means: bool = False
    directions: Mapping[str, bool | None] = field(default_factory=dict)
    are_drawn: bool | None = None


def read_results(jobs: Sequence[SweptJob]) -> list[JobResults]:
    """The results of the jobs that succeeded.

    Of jobs that shared a directory, the files of the last one alone are left, so for them the figures stand that were
    recorded when each ended.
    """
    shared = {directory for directory, count in Counter(job.directory for job in jobs).items() if count > 1}
    return [_figures_of(job) if job.directory in shared else _read(job) for job in jobs if job.error is None]


def _read(job: SweptJob) -> JobResults:
    directory = Path(job.directory)
    results, lines = _json(directory / RESULTS), _lines(directory / LINES)
    found = JobResults(job, str(results.get("dataset", "")), results.get("split"), directions=_directions(results))
    if not lines:
        return _figures_of(job, found, results)
    chosen = str(results.get("chosen") or lines[-1]["method"])
    unguided = _unguided(chosen, {line["method"] for line in lines})
    names = {"chosen": chosen, "unguided": unguided, "original": ORIGINAL}
    return JobResults(
        job,
        found.dataset,
        found.split,
        **{role: _row(line for line in lines if line["method"] == name)(job) for role, name in names.items()},
        images=_directories(job, lines, chosen),
        unguided_images=_directories(job, lines, unguided),
        directions=found.directions,
        are_drawn=results.get("are_drawn"),
    )


def _figures_of(job: SweptJob, found: JobResults | None = None, results: Mapping[str, Any] | None = None) -> JobResults:
    """The results of a job that has no values by data seed, from the figures that its record has."""
    directions = _directions(
        results or _json(Path(job.directory) / RESULTS)
    )  # the same for jobs that share a directory
    results = results or {}
    seed = _whole(results.get("seed", job.given().get("seed")))
    unit = (job.given().get(FOLD, ""), 0 if seed is None else seed)
    figures = {name: number(value) for name, value in job.figures.items() if "/" not in name}
    values = {name: {unit: value} for name, value in figures.items() if value is not None}
    expanded = results.get("expanded")
    images = {unit: Path(expanded)} if isinstance(expanded, str) else {}
    found = found or JobResults(job, only_means=True)
    return JobResults(
        job,
        found.dataset,
        found.split,
        chosen=values,
        images=images,
        only_means=found.only_means,
        directions=directions,
    )


def _directions(results: Mapping[str, Any]) -> dict[str, bool | None]:
    known = results.get(BETTER)
    if not isinstance(known, dict):
        return {}
    return {name: value for name, value in known.items() if value is None or isinstance(value, bool)}


def _row(lines: Iterable[Mapping[str, str]]):
    """A function that gives the values of a row from its lines, each the mean over the training seeds of a data seed."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for name, text in line.items():
            if name not in NOT_VALUES and (value := number(text)) is not None:
                found[name][int(line["seed"])].append(value)

    def of(job: SweptJob) -> Row:
        fold = job.given().get(FOLD, "")
        return {name: {(fold, seed): fmean(each) for seed, each in of_seed.items()} for name, of_seed in found.items()}

    return of


def _directories(job: SweptJob, lines: Iterable[Mapping[str, str]], name: str) -> dict[Unit, Path]:
    fold = job.given().get(FOLD, "")
    of_row = [line for line in lines if line["method"] == name and line.get("expanded")]
    return {(fold, int(line["seed"])): Path(line["expanded"]) for line in of_row}


def number(text: object) -> float | None:
    """The finite number that `text` is; None if it is none.

    >>> number("1e-3"), number("nan"), number("[1,2]"), number("null")
    (0.001, None, None, None)
    """
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _unguided(chosen: str, rows: Container[str]) -> str:
    """The row with which the row `chosen` is compared: that of the same factor and, if it ends in `_best`, `none_best`."""
    base, at, factor = chosen.partition(AT)
    unguided = f"{UNGUIDED}{at}{factor}"
    return best_of(unguided) if base.endswith(BEST) and best_of(unguided) in rows else unguided


def _whole(text: object) -> int | None:
    """The whole number that `text` is; None if it is none."""
    try:
        return int(str(text))
    except ValueError:
        return None


def _json(path: Path) -> dict[str, Any]:
    """The contents of a job's JSON file; empty if it is missing or damaged, since other jobs can still be shown."""
    found = contents_of(path)
    return found if isinstance(found, dict) else {}


def _lines(path: Path) -> list[dict[str, str]]:
    """The whole lines of a job's table of results; empty if it is missing."""
    try:
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            lines = [line for line in csv.DictReader(file) if None not in line]
    except (OSError, csv.Error):
        return []
    return [line for line in lines if line.get("method") and _whole(line.get("seed")) is not None]
