"""The tables of the page of a sweep: its settings, their measures, and its jobs."""

import os
from collections.abc import Iterator, Sequence
from statistics import fmean

from distdiff.report.sweep.choosing import Choice
from distdiff.report.sweep.figure import value_title
from distdiff.report.sweep.findings import SURE, ends, name_of
from distdiff.report.sweep.jobs import Row, Values
from distdiff.report.sweep.settings import Setting, Sweep, interval
from distdiff.report.table import NOTHING, shown_number
from distdiff.study.measures import ACCURACY
from distdiff.study.statistics import PairedDifference, paired_difference


def settings_table(sweep: Sweep, chosen: Sequence[Choice]) -> list[list[str]]:
    """The titles of the table of settings, and a row for each: what the choice rests on, or all values if there is no accuracy.

    Unguided expansion has no row of its own where it is a setting of the sweep, such as the one with ρ = 0.
    """
    gains = {id(gain.setting): gain.difference for choice in chosen for gain in choice.gains}
    within = {id(each): "no" for choice in chosen for each in choice.compared}
    within |= {id(each): "yes" for choice in chosen for each in choice.within}
    picked = {id(choice.chosen) for choice in chosen}
    has_error = any(choice.within for choice in chosen)
    has_unguided = any(choice.unguided for choice in chosen)
    twins = _twins(chosen)
    titles = [*_keys(sweep), *(["guided"] if has_unguided else []), *(["chosen"] if chosen else [])]
    names = [ACCURACY] if ACCURACY in sweep.names else sweep.names
    titles += [value_title(sweep, name) for name in names]
    titles += [*(["vs unguided"] if gains else []), *(["within one standard error"] if has_error else []), "data seeds"]
    rows = []
    for setting in _rows(sweep, chosen):
        judged = id(twins.get(id(setting), setting))
        cells = _given(sweep, setting)
        if has_unguided:
            cells.append("no" if any(choice.guides_not(setting) for choice in chosen) else "yes")
        if chosen:
            cells.append("yes" if judged in picked else "")
        cells += [_cell(setting.values, name) for name in names]
        if gains:
            gain = gains.get(id(setting))
            cells.append(NOTHING if gain is None else f"{gain.mean:+.3f} {ends(gain.interval)}".strip())
        if has_error:
            cells.append(within.get(judged, NOTHING))
        rows.append([*cells, str(max(map(len, setting.values.values()), default=0))])
    return [titles, *rows]


def measures_table(sweep: Sweep, chosen: Sequence[Choice]) -> tuple[list[list[str]], str]:
    """The titles of the table of all values but accuracy, with a row for each setting, and what the numbers are.

    A value is followed by its difference from unguided expansion where this is known, and else by its interval. Both are
    empty for a sweep without accuracies, or with nothing else.
    """
    names = [name for name in sweep.names if name != ACCURACY]
    if not names or len(names) == len(sweep.names):
        return [], ""
    titles = [*_keys(sweep), *(value_title(sweep, name) for name in names)]
    rows, found = [], []
    for setting in _rows(sweep, chosen):
        differences = {name: _difference(setting.of(name), setting.unguided.get(name, {})) for name in names}
        found += [each for each in differences.values() if each is not None]
        cells = (
            _cell(setting.values, name) if each is None else f"{shown_number(setting.mean(name))} ({_told(each)})"
            for name, each in differences.items()
        )
        rows.append([*_given(sweep, setting), *cells])
    return [titles, *rows], _about(found, len(sweep.units) > 1)


def jobs_table(sweep: Sweep) -> list[list[str]]:
    """The titles of the table of jobs, and a row for each job: its values, how it ended, and its directory."""
    keys = [*sweep.keys, *sweep.repeats]
    rows = []
    for job in sweep.jobs:
        given = job.given()
        place = os.path.relpath(job.directory, sweep.directory)
        rows.append([str(job.number), *(given.get(key, NOTHING) for key in keys), job.error or "done", place])
    return [["job", *keys, "ended", "directory"], *rows]


def shown(values: Values) -> str:
    """The mean over data seeds, with its interval if there are several."""
    found, mean = interval(values), shown_number(fmean(values.values()))
    return mean if found is None else f"{mean} [{shown_number(found.low)}, {shown_number(found.high)}]"


def _twins(chosen: Sequence[Choice]) -> dict[int, Setting]:
    """Unguided expansion by the `id` of the one setting that is the same, such as that with ρ = 0."""
    return {id(twin): each for choice in chosen for each in choice.unguided if (twin := choice.only_twin_of(each))}


def _rows(sweep: Sweep, chosen: Sequence[Choice]) -> Iterator[Setting]:
    """Unguided expansion where no setting is the same, then all settings."""
    twins = list(_twins(chosen).values())
    for choice in chosen:
        yield from (each for each in choice.unguided if all(each is not other for other in twins))
    yield from sweep.settings


def _keys(sweep: Sweep) -> list[str]:
    return list(sweep.keys) or ["setting"]


def _given(sweep: Sweep, setting: Setting) -> list[str]:
    return [setting.given[key] for key in sweep.keys] or [name_of(sweep, setting)]


def _cell(row: Row, name: str) -> str:
    return shown(row[name]) if row.get(name) else NOTHING


def _difference(values: Values, unguided: Values) -> PairedDifference | None:
    """The difference from unguided expansion over their common data seeds; None without any, and for unguided expansion."""
    units = [unit for unit in values if unit in unguided]
    if not units or values == unguided:
        return None
    return paired_difference([values[unit] for unit in units], [unguided[unit] for unit in units])


def _told(difference: PairedDifference) -> str:
    half = "" if difference.interval is None else f" ± {shown_number(difference.high - difference.mean)}"
    return f"{shown_number(difference.mean, '+.3f')}{half}"


def _about(differences: Sequence[PairedDifference], has_seeds: bool) -> str:
    """What the numbers of the table of measures are."""
    if not differences:
        return f"Means over data seeds, with {SURE} Student t intervals, each by itself." if has_seeds else ""
    if not has_seeds:
        return "In parentheses: the difference from unguided expansion."
    half = ", ± half of its interval" if any(each.interval for each in differences) else ""
    return (
        f"Means over data seeds. In brackets: their {SURE} Student t intervals. In parentheses: the difference from unguided "
        f"expansion, paired by data seed{half}. Each interval is by itself."
    )
