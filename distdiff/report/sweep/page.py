"""`sweep.html` and `sweep.svg`: what a multirun's jobs have found, on a page that needs no other file."""

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from distdiff.report.figures import inline
from distdiff.report.page import write_page
from distdiff.report.sweep.choosing import Choice, choices
from distdiff.report.sweep.figure import panels, value_title, whole_figure
from distdiff.report.sweep.final_test import final_test
from distdiff.report.sweep.findings import details, ends, headline, name_of, notes, without_choice
from distdiff.report.sweep.jobs import Row, Values
from distdiff.report.sweep.pictures import pictures
from distdiff.report.sweep.settings import Sweep, interval
from distdiff.report.table import shown_number
from distdiff.study.measures import ACCURACY
from distdiff.tracking.sweep import SweptJob

PAGE, FIGURE = "sweep.html", "sweep.svg"
NOTHING = "–"


def write_sweep(command: str, directory: Path, jobs: Sequence[SweptJob]) -> Path:
    """Writes the page on these jobs, and its figure as a file of its own if there is one. Returns the page's file."""
    sweep = Sweep.of(command, directory, jobs)
    chosen = choices(sweep)
    drawn = panels(sweep, chosen)
    if drawn:
        whole_figure(sweep, chosen).savefig(directory / FIGURE)
    write_page(
        "sweep.html",
        directory / PAGE,
        title=_title(sweep),
        findings=[(headline(sweep, choice), details(sweep, choice), final_test(sweep, choice)) for choice in chosen],
        without_choice=without_choice(sweep),
        failed=[(job.number, _told(sweep, job), job.error) for job in sweep.failed],
        num_jobs=len(sweep.jobs),
        panels=[(panel, inline(panel.figure, panel.title, panel.description)) for panel in drawn],
        levels=_levels(sweep),
        pictures=pictures(sweep, chosen),
        settings=_settings(sweep, chosen),
        jobs=_jobs(sweep),
        notes=notes(sweep, chosen),
    )
    return directory / PAGE


def _title(sweep: Sweep) -> str:
    keys = ", ".join(sweep.keys or sweep.repeats) or "one setting"
    datasets = f" on {', '.join(sweep.datasets)}" if sweep.datasets else ""
    return f"Sweep of {sweep.command} over {keys}{datasets}"


def _told(sweep: Sweep, job: SweptJob) -> str:
    """The overrides in which the job differs from others."""
    given = job.given()
    return ", ".join(f"{key}={given.get(key, NOTHING)}" for key in (*sweep.keys, *sweep.repeats))


def _levels(sweep: Sweep) -> list[str]:
    """The accuracies of rows that are the same for all settings, one sentence each."""
    found = []
    for words, rows in {
        "Unguided expansion": [setting.unguided for setting in sweep.settings],
        "The original images alone": [setting.original for setting in sweep.settings],
    }.items():
        values = [row[ACCURACY] for row in rows if row.get(ACCURACY)]
        if values and all(each == values[0] for each in values):
            found.append(f"{words}: accuracy {_shown(values[0])}.")
    return found


def _shown(values: Values) -> str:
    found, mean = interval(values), shown_number(fmean(values.values()))
    return mean if found is None else f"{mean} [{shown_number(found.low)}, {shown_number(found.high)}]"


def _settings(sweep: Sweep, chosen: Sequence[Choice]) -> list[list[str]]:
    """The titles of the table of settings, and a row for each setting.

    Unguided expansion has no row of its own where it is a setting of the sweep, such as the one with ρ = 0.
    """
    gains = {id(gain.setting): gain.difference for choice in chosen for gain in choice.gains}
    within = {id(each): "no" for choice in chosen for each in choice.compared}
    within |= {id(each): "yes" for choice in chosen for each in choice.within}
    picked = {id(choice.chosen) for choice in chosen}
    has_error = any(choice.within for choice in chosen)
    unguided = [each for choice in chosen for each in choice.unguided]
    twins = {id(twin): each for choice in chosen for each in choice.unguided if (twin := choice.only_twin_of(each))}
    ahead = [each for each in unguided if all(each is not other for other in twins.values())]
    keys = list(sweep.keys) or ["setting"]
    titles = [*keys, *(["guided"] if unguided else []), *(["chosen"] if chosen else [])]
    titles += [value_title(sweep, name) for name in sweep.names[:1]]
    titles += [*(["vs unguided"] if gains else []), *(["within one standard error"] if has_error else [])]
    titles += [*(value_title(sweep, name) for name in sweep.names[1:]), "data seeds"]
    rows = []
    for setting in (*ahead, *sweep.settings):
        judged = id(twins.get(id(setting), setting))
        cells = [setting.given[key] for key in sweep.keys] or [name_of(sweep, setting)]
        if unguided:
            cells.append("no" if any(choice.guides_not(setting) for choice in chosen) else "yes")
        if chosen:
            cells.append("yes" if judged in picked else "")
        cells += [_cell(setting.values, name) for name in sweep.names[:1]]
        if gains:
            gain = gains.get(id(setting))
            cells.append(NOTHING if gain is None else f"{gain.mean:+.3f} {ends(gain.interval)}".strip())
        if has_error:
            cells.append(within.get(judged, NOTHING))
        cells += [_cell(setting.values, name) for name in sweep.names[1:]]
        rows.append([*cells, str(max(map(len, setting.values.values()), default=0))])
    return [titles, *rows]


def _cell(row: Row, name: str) -> str:
    return _shown(row[name]) if row.get(name) else NOTHING


def _jobs(sweep: Sweep) -> list[list[str]]:
    keys = [*sweep.keys, *sweep.repeats]
    rows = []
    for job in sweep.jobs:
        given = job.given()
        place = os.path.relpath(job.directory, sweep.directory)
        rows.append([str(job.number), *(given.get(key, NOTHING) for key in keys), job.error or "done", place])
    return [["job", *keys, "ended", "directory"], *rows]
