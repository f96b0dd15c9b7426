"""Compares the results of a multirun's jobs: a table, and `sweep.csv` in the multirun's directory."""

import csv
import functools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from rich import box
from rich.table import Table
from rich.text import Text

from distdiff.console.output import console

TABLE, RESULTS = "sweep.csv", "results.json"
SHOWN = 6  # the number of figures on the console; `sweep.csv` has all figures
FOLD = "dataset.fold"  # jobs that differ in this key alone are also averaged
MULTIRUN = "multirun"  # the folder of all multiruns of a command, unless hydra.sweep.dir is another
UNENDED = "it did not end"


@dataclass(frozen=True)
class SweptJob:
    """A job of the multirun in the directory `sweep`: its number, directory and overrides.

    `error` is None if the job succeeded; otherwise it says why the job failed. `figures` are the numbers in its results.
    """

    number: int
    sweep: str
    directory: str
    overrides: tuple[str, ...]
    error: str | None = UNENDED
    figures: Mapping[str, float] = field(default_factory=dict)

    def given(self) -> dict[str, str]:
        """The values of the job's overrides by key, of which a later override changes an earlier one.

        >>> SweptJob(0, "", "", ("seed=1", "+guidance.rho=1", "++guidance.rho=2", "~seed")).given()
        {'guidance.rho': '2'}
        """
        found: dict[str, str] = {}
        for item in self.overrides:
            key, value = key_and_value(item)
            if value is None:
                found.pop(key, None)
            else:
                found[key] = value
        return found


def key_and_value(override: str) -> tuple[str, str | None]:
    """The key that an override changes, as Hydra reads it, and the text of its value; None if it takes the key out.

    Hydra's prefixes are no part of the key; the package behind an @ is.

    >>> key_and_value("++seed=1"), key_and_value("+x="), key_and_value("~a.b"), key_and_value("guidance@other=direct")
    (('seed', '1'), ('x', ''), ('a.b', None), ('guidance@other', 'direct'))
    """
    typed, equals, value = override.partition("=")
    key, is_taken_out = _key(typed + equals)
    return key, None if is_taken_out else value


@functools.cache
def _key(typed: str) -> tuple[str, bool]:
    """The key of an override up to its value, and whether the override takes the key out."""
    try:
        parsed = OverridesParser.create().parse_rule(typed, "override")
    except HydraException:
        return typed.rstrip("=").lstrip("+~"), typed.startswith("~")
    package = "" if parsed.package is None else f"@{parsed.package}"
    return f"{parsed.key_or_group}{package}", parsed.type is OverrideType.DEL


def figures_in(directory: Path) -> dict[str, float]:
    """The numbers in a job's results that a sweep compares; empty if the job wrote no results."""
    results = contents_of(directory / RESULTS) or {}
    numbers = results.get("summary", results)
    return {name: value for name, value in numbers.items() if type(value) in (int, float) and name != "seed"}


@dataclass(frozen=True)
class Folds:
    """Jobs that differ in `dataset.fold` alone: those of `jobs` that succeeded, among the folds `folds` of all of them."""

    jobs: tuple[SweptJob, ...]
    folds: tuple[str, ...]
    num_all: int

    def mean(self) -> dict[str, float]:
        """The mean over folds of each figure that all jobs have."""
        return {name: fmean(values) for name, values in self._values().items()}

    def std(self) -> dict[str, float]:
        """The sample standard deviation over folds of each figure that all jobs have; empty for a single job."""
        return {name: stdev(values) for name, values in self._values().items() if len(values) > 1}

    def lacking(self) -> str:
        """How many of the folds are not in the mean, in words; empty if none."""
        lost = self.num_all - len(self.jobs)
        return f"{lost} of {self.num_all} folds failed" if lost else ""

    def _values(self) -> dict[str, list[float]]:
        names = [name for name in self.jobs[0].figures if all(name in job.figures for job in self.jobs)]
        return {name: [job.figures[name] for job in self.jobs] for name in names}


class SweptJobs:
    """The records of a multirun's jobs, one file per job, in the folder `.jobs` of the multirun's directory.

    Hydra's callbacks write them in the processes that run jobs, which have no other way to report how their jobs ended.
    """

    def __init__(self, sweep: Path) -> None:
        self.folder = sweep / ".jobs"

    def write(self, job: SweptJob) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / f"{job.number}.part"
        aside.write_text(json.dumps(asdict(job)), encoding="utf-8")
        aside.replace(self.folder / f"{job.number}.json")

    def read(self) -> list[SweptJob]:
        """The jobs that have begun, in the order of their numbers."""
        records = filter(None, map(contents_of, self.folder.glob("*.json")))
        return sorted((SweptJob(**record) for record in records), key=lambda job: job.number)

    def forget(self) -> None:
        """Removes the records of an earlier multirun in the same directory."""
        shutil.rmtree(self.folder, ignore_errors=True)


def multirun_of(run_dir: Path) -> Path | None:
    """The directory of the multirun to which `run_dir` belongs, or which it is; None for a single run."""
    if run_dir.parent.parent.name == MULTIRUN:
        return run_dir.parent
    return next((folder for folder in (run_dir, *run_dir.parents) if SweptJobs(folder).folder.is_dir()), None)


def contents_of(path: Path) -> dict[str, Any] | None:
    """The contents of a JSON file; None if the file is missing or incomplete.

    It raises no error, because an error here would hide why the sweep ended.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def over_folds(jobs: Sequence[SweptJob]) -> list[Folds]:
    """The jobs by all their overrides but `dataset.fold`, where they have several folds and one of them succeeded."""
    groups: dict[tuple[tuple[str, str], ...], dict[str, SweptJob]] = {}
    for job in jobs:
        if (fold := job.given().get(FOLD)) is not None:
            others = tuple(item for item in job.given().items() if item[0] != FOLD)
            groups.setdefault(others, {})[fold] = job
    found = []
    for group in groups.values():
        ended = {fold: job for fold, job in group.items() if job.error is None}
        if len(group) > 1 and ended:
            found.append(Folds(tuple(ended.values()), tuple(ended), len(group)))
    return found


def conclude(jobs: Sequence[SweptJob]) -> None:
    """Prints the jobs' figures and errors and writes `sweep.csv`; does nothing if no job has figures or an error."""
    if not any(job.figures for job in jobs) and all(job.error is None for job in jobs):
        return
    differing = differing_keys(jobs)
    names = list(dict.fromkeys(name for job in jobs for name in job.figures))
    console.print()
    console.print(_table(jobs, differing, names[:SHOWN]), soft_wrap=False)
    for job in jobs:
        if job.error is not None:
            console.print(f"job {job.number} failed: {job.error}")
    for group in over_folds(jobs):
        if group.lacking():
            console.print(f"a mean leaves folds out: {group.lacking()}")
    path = Path(jobs[0].sweep) / TABLE
    try:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["job", *differing, *names, "error", "directory"])
            writer.writerows(_lines(jobs, differing, names))
            writer.writerows(_lines_of_folds(over_folds(jobs), differing, names))
    except OSError as error:
        console.print(f"{path}: cannot write there ({error.strerror})")
        return
    console.print(f"sweep    {path}")


def differing_keys(jobs: Sequence[SweptJob]) -> list[str]:
    """The keys whose values differ between jobs, in the order in which the overrides were given."""
    given = [job.given() for job in jobs]
    keys = dict.fromkeys(key for overrides in given for key in overrides)
    return [key for key in keys if len({overrides.get(key) for overrides in given}) > 1]


def _lines(jobs: Sequence[SweptJob], differing: Sequence[str], names: Sequence[str]) -> Iterator[list[Any]]:
    for job in jobs:
        given = job.given()
        told = [given.get(key, "") for key in differing]
        yield [job.number, *told, *(job.figures.get(name, "") for name in names), job.error or "", job.directory]


def _lines_of_folds(groups: Sequence[Folds], differing: Sequence[str], names: Sequence[str]) -> Iterator[list[Any]]:
    """Two lines for each group: the means over its folds, and the standard deviations."""
    for group in groups:
        given = group.jobs[0].given() | {FOLD: ",".join(group.folds)}
        told = [given.get(key, "") for key in differing]
        for word, figures in (("mean", group.mean()), ("std", group.std())):
            yield [word, *told, *(figures.get(name, "") for name in names), group.lacking(), ""]


def _table(jobs: Sequence[SweptJob], differing: Sequence[str], names: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("job", justify="right")
    for key in differing:
        table.add_column(Text(key))
    for name in names:
        table.add_column(Text(name.replace("/", "\n")), justify="right")
    for job in jobs:
        found = job.figures
        told = [Text(job.given().get(key, "–")) for key in differing]
        missing = "–" if job.error is None else "failed"
        table.add_row(str(job.number), *told, *(f"{found[name]:,.4g}" if name in found else missing for name in names))
    for number, group in enumerate(over_folds(jobs)):
        if number == 0:
            table.add_section()
        mean, std = group.mean(), group.std()
        given = group.jobs[0].given() | {FOLD: f"{len(group.folds)} folds"}
        told = [Text(given.get(key, "–")) for key in differing]
        cells = [f"{mean[name]:,.4g}" if name in mean else "–" for name in names]
        spreads = [f" ± {std[name]:,.2g}" if name in std else "" for name in names]
        table.add_row("mean", *told, *(cell + spread for cell, spread in zip(cells, spreads, strict=True)))
    return table
