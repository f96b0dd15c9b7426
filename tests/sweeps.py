"""Multiruns as they lie on disk, made from the accuracies of their jobs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study_results import Accuracies, results

from distdiff.metrics.base import Metric
from distdiff.metrics.coverage import Coverage
from distdiff.metrics.diversity import Diversity
from distdiff.metrics.frechet_distance import FrechetDistance
from distdiff.metrics.label_consistency import LabelConsistency
from distdiff.metrics.near_copies import NearCopies
from distdiff.tracking.sweep import SweptJob, SweptJobs, figures_in

METRICS: dict[str, type[Metric]] = {
    "coverage": Coverage,
    "diversity": Diversity,
    "frechet_distance": FrechetDistance,
    "label_consistency": LabelConsistency,
    "near_copies": NearCopies,
}
DIRECTIONS = {name: metric.higher_is_better for name, metric in METRICS.items()}


def study_job(place: Path, overrides: str, rows: Mapping[str, Accuracies], **more: Any) -> SweptJob:
    """A job of `run` that has ended: its results are those of a study with these rows, of which `direct` is chosen.

    `more` are fields of `StudyResults`, and `measures` and `of_none`: the value of each measure of the rows `direct` and
    `none`, to which each seed adds a hundredth of its own.
    """
    measures, of_none = more.pop("measures", {}), more.pop("of_none", {})
    found = results(dict(rows))
    for name, value in ({"split": "validation"} | more).items():
        setattr(found, name, value)
    for row in found.rows:
        for run in row.runs:
            known = measures if row.method == found.chosen else of_none if row.method == "none" else {}
            run.measures = {name: value + run.seed / 100 for name, value in known.items()}
    found.measures = {name: DIRECTIONS.get(name) for name in measures}
    directory = _folder(place)
    found.write(directory)
    return _recorded(place, directory, overrides)


def plain_job(place: Path, overrides: str, figures: Mapping[str, Any]) -> SweptJob:
    """A job of another command, which has left `figures` as its results."""
    directory = _folder(place)
    (directory / "results.json").write_text(json.dumps(figures))
    return _recorded(place, directory, overrides)


def failed_job(place: Path, overrides: str, error: str) -> SweptJob:
    directory = _folder(place)
    job = SweptJob(int(directory.name), str(place), str(directory), tuple(overrides.split()), error)
    SweptJobs(place).write(job)
    return job


def _folder(place: Path) -> Path:
    directory = place / str(sum(path.name.isdigit() for path in place.iterdir()) if place.is_dir() else 0)
    directory.mkdir(parents=True)
    return directory


def _recorded(place: Path, directory: Path, overrides: str) -> SweptJob:
    given = tuple(overrides.split())
    job = SweptJob(int(directory.name), str(place), str(directory), given, None, figures_in(directory))
    SweptJobs(place).write(job)
    return job


def jobs_over(
    place: Path, key: str, accuracies: Mapping[Any, Sequence[float]], none: Sequence[float] | None = None
) -> list[SweptJob]:
    """A job for each value of `key`, with the accuracies of its data seeds; `none` are those of the unguided row."""
    rows = {} if none is None else {"none": none}
    return [
        study_job(place, f"{key}={value} seed=1000", rows | {"direct": of_value})
        for value, of_value in accuracies.items()
    ]
