"""Turns a multirun's jobs into the settings that it compares, each with its values by data seed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean

from distdiff.report.sweep.jobs import JobResults, Row, Unit, Values, number, read_results
from distdiff.study.measures import ACCURACY, DIRECTIONS
from distdiff.study.methods import UNGUIDED
from distdiff.study.statistics import Interval, mean_interval
from distdiff.tracking.sweep import FOLD, SweptJob, differing_keys

RHO, GUIDANCE = "guidance.rho", "guidance"
SEED = "seed"
REPEATS = (SEED, FOLD)  # jobs that differ in these alone repeat the same setting
PANELS = (ACCURACY, "frechet_distance", "label_consistency", "coverage", "diversity")  # shown if jobs have them
MOST_PANELS = 5
NOT_SHOWN = ("num_train", "images_per_second", "images", "validation_accuracy", "judge_accuracy", "accuracy_mean")
UNTOLD = "–"  # stands for a value that a key does not have


@dataclass(frozen=True)
class Setting:
    """The value of each key in which jobs differ, and what the jobs with these values found.

    `values` and the others are by name and then by data seed (and fold). `unguided` are the values of the same setting
    without guidance: of the row `none`. If `sharing` is not empty, this is itself unguided expansion: the row `none` of
    the jobs of these settings.
    """

    given: Mapping[str, str]
    jobs: tuple[JobResults, ...]
    values: Row
    unguided: Row
    original: Row
    dataset: str = ""
    sharing: tuple["Setting", ...] = ()

    @classmethod
    def unguided_of(cls, sharing: Sequence["Setting"]) -> "Setting":
        """Unguided expansion, whose values these settings share. Keys that it does not depend on have no value."""
        first = sharing[0]
        given = {}
        for key, value in first.given.items():
            depends = not key.startswith(f"{GUIDANCE}.") and all(each.given[key] == value for each in sharing)
            given[key] = value if depends else UNTOLD
        given |= {key: value for key, value in {RHO: "0", GUIDANCE: UNGUIDED}.items() if key in given}
        return cls(given, first.jobs, first.unguided, {}, first.original, first.dataset, tuple(sharing))

    @property
    def is_unguided(self) -> bool:
        return bool(self.sharing)

    def of(self, name: str) -> Values:
        return self.values.get(name, {})

    def mean(self, name: str) -> float | None:
        values = self.of(name)
        return fmean(values.values()) if values else None

    def number(self, key: str) -> float | None:
        """The value of a numeric key."""
        return number(self.given[key])

    @cached_property
    def images(self) -> dict[Unit, Path]:
        if self.is_unguided:
            return self.unguided_images
        return {unit: path for job in self.jobs for unit, path in job.images.items()}

    @cached_property
    def unguided_images(self) -> dict[Unit, Path]:
        return {unit: path for job in self.jobs for unit, path in job.unguided_images.items()}


def interval(values: Values) -> Interval | None:
    """The 95 % Student t interval of the mean over data seeds; None for less than two."""
    return mean_interval(list(values.values())) if len(values) > 1 else None


@dataclass(frozen=True)
class Sweep:
    """The settings that a multirun compares.

    `numeric` are the keys with numbers alone and `others` the remaining ones, in the order in which they were given.
    `repeats` are the keys whose values only repeat a setting.
    """

    command: str
    directory: Path
    jobs: tuple[SweptJob, ...]
    settings: tuple[Setting, ...] = ()
    numeric: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    repeats: tuple[str, ...] = ()

    @classmethod
    def of(cls, command: str, directory: Path, jobs: Sequence[SweptJob]) -> "Sweep":
        """The sweep of these jobs, whose results are read from their directories."""
        differing = differing_keys(jobs)
        keys = [key for key in differing if key not in REPEATS]
        numeric = [key for key in keys if all(number(job.given().get(key)) is not None for job in jobs)]
        settings = _settings(read_results(jobs), keys, numeric)
        places = sorted(settings, key=lambda setting: tuple(setting.number(key) for key in numeric))
        return cls(
            command,
            directory,
            tuple(jobs),
            tuple(_with_unguided(places)),
            tuple(numeric),
            tuple(key for key in keys if key not in numeric),
            tuple(key for key in differing if key in REPEATS),
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys in which settings differ."""
        return (*self.numeric, *self.others)

    @property
    def axes(self) -> tuple[str, ...]:
        """The keys along which values are drawn, at most two. Further keys make groups."""
        return self.numeric[:2]

    @property
    def problems(self) -> tuple[str, ...]:
        """The keys that change the data. Settings that differ in these are not compared with each other."""
        return tuple(key for key in self.keys if key.partition(".")[0].partition("@")[0] == "dataset")

    def group(self, setting: Setting) -> str:
        """The name of the series to which a setting belongs, from its keys that are no axes; empty if there are none."""
        keys = [key for key in self.keys if key not in self.axes]
        return ", ".join(f"{key}={setting.given[key]}" if len(keys) > 1 else setting.given[key] for key in keys)

    def grouped(self) -> dict[str, list[Setting]]:
        """The settings of each series, in ascending order of the axes."""
        found: dict[str, list[Setting]] = {}
        for setting in self.settings:
            found.setdefault(self.group(setting), []).append(setting)
        return found

    @cached_property
    def names(self) -> list[str]:
        """The names of all values, those that are drawn first."""
        known = dict.fromkeys(name for setting in self.settings for name in setting.values)
        first = [name for name in PANELS if name in known]
        return [*first, *(name for name in known if name not in (*first, *NOT_SHOWN) and not name.startswith("diff"))]

    @property
    def panels(self) -> list[str]:
        """The names of the values that are drawn: those of `PANELS` that there are, or else the first ones."""
        usual = [name for name in self.names if name in PANELS]
        return usual if set(usual) - {ACCURACY} or len(self.names) == len(usual) else self.names[:MOST_PANELS]

    @cached_property
    def directions(self) -> Mapping[str, bool | None]:
        """Whether higher values are better, by name; None if neither higher nor lower ones are. Jobs know their metrics."""
        found = dict(DIRECTIONS)
        for setting in self.settings:
            for job in setting.jobs:
                found |= job.directions
        return found

    @cached_property
    def leading(self) -> tuple[str, bool] | None:
        """The value by which settings are ranked, and whether higher is better; None if no value has a direction."""
        known = ((name, self.directions.get(name)) for name in dict.fromkeys((*self.panels, *self.names)))
        return next(((name, better) for name, better in known if better is not None), None)

    @cached_property
    def ranked(self) -> list[Setting]:
        """The settings, the best first and those without a value last; in their own order if none is better."""
        if self.leading is None:
            return list(self.settings)
        name, higher = self.leading
        known = [each for each in self.settings if each.of(name)]
        best_first = sorted(known, key=lambda each: each.mean(name), reverse=higher)
        return [*best_first, *(each for each in self.settings if not each.of(name))]

    @cached_property
    def units(self) -> list[Unit]:
        """What the values are repeated over."""
        return sorted({unit for setting in self.settings for values in setting.values.values() for unit in values})

    @property
    def split(self) -> str | None:
        """The images that accuracies are on; None if jobs differ in it or have none."""
        splits = {job.split for setting in self.settings for job in setting.jobs}
        return splits.pop() if len(splits) == 1 else None

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(setting.dataset for setting in self.settings if setting.dataset))

    @property
    def failed(self) -> list[SweptJob]:
        return [job for job in self.jobs if job.error is not None]

    @property
    def only_means(self) -> bool:
        """Whether the values by data seed are not known of some job."""
        return any(job.only_means for setting in self.settings for job in setting.jobs)


def _settings(found: Sequence[JobResults], keys: Sequence[str], numeric: Sequence[str]) -> list[Setting]:
    """The settings of the jobs. Numbers that are written differently, such as 1 and 1.0, are the same."""
    groups: dict[tuple[float | str, ...], list[JobResults]] = {}
    for job in found:
        given = job.job.given()
        place = tuple(number(given[key]) if key in numeric else given.get(key, UNTOLD) for key in keys)
        groups.setdefault(place, []).append(job)
    return [
        Setting(
            {key: jobs[0].job.given().get(key, UNTOLD) for key in keys},
            tuple(jobs),
            *(_together([getattr(job, role) for job in jobs]) for role in ("chosen", "unguided", "original")),
            next((job.dataset for job in jobs if job.dataset), ""),
        )
        for jobs in groups.values()
    ]


def _together(rows: Sequence[Row]) -> Row:
    """The values of a row in several jobs. A data seed that several jobs have counts once, with their mean."""
    found: dict[str, dict[Unit, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, values in row.items():
            for unit, value in values.items():
                found[name][unit].append(value)
    return {name: {unit: fmean(each) for unit, each in sorted(units.items())} for name, units in found.items()}


def _with_unguided(settings: Sequence[Setting]) -> list[Setting]:
    """The settings, where those whose study has no unguided row have the values of the same setting with ρ = 0."""
    if not settings or RHO not in settings[0].given:
        return list(settings)
    zero = {_others(each): each for each in settings if each.number(RHO) == 0}
    return [
        replace(each, unguided=zero[_others(each)].values) if not each.unguided and _others(each) in zero else each
        for each in settings
    ]


def _others(setting: Setting) -> tuple[str, ...]:
    return tuple(value for key, value in setting.given.items() if key != RHO)
