"""`sweep.html` and `sweep.svg`: what a multirun's jobs have found, on a page that needs no other file."""

from collections.abc import Sequence
from pathlib import Path

from distdiff.report.figures import inline
from distdiff.report.page import write_page
from distdiff.report.sweep.choosing import choices
from distdiff.report.sweep.figure import panels, whole_figure
from distdiff.report.sweep.final_test import final_test
from distdiff.report.sweep.findings import details, headline, notes, without_choice
from distdiff.report.sweep.pictures import pictures
from distdiff.report.sweep.settings import Sweep
from distdiff.report.sweep.tables import jobs_table, measures_table, settings_table, shown
from distdiff.report.table import NOTHING
from distdiff.study.measures import ACCURACY
from distdiff.tracking.sweep import SweptJob

PAGE, FIGURE = "sweep.html", "sweep.svg"


def write_sweep(command: str, directory: Path, jobs: Sequence[SweptJob]) -> Path:
    """Writes the page on these jobs, and its figure as a file of its own if there is one. Returns the page's file."""
    sweep = Sweep.of(command, directory, jobs)
    chosen = choices(sweep)
    drawn, (measures, about_measures) = panels(sweep, chosen), measures_table(sweep, chosen)
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
        settings=settings_table(sweep, chosen),
        measures=measures,
        about_measures=about_measures,
        jobs=jobs_table(sweep),
        notes=notes(sweep, chosen),
    )
    return directory / PAGE


def _title(sweep: Sweep) -> str:
    keys = ", ".join(sweep.keys or sweep.repeats) or "one setting"
    datasets = f" on {', '.join(sweep.datasets)}" if sweep.datasets else ""
    return f"Sweep of {keys}{datasets} (distdiff {sweep.command})"


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
            found.append(f"{words}: accuracy {shown(values[0])}.")
    return found
