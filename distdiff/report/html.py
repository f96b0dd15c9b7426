"""`report.html`: the report on a study, a single page that needs no other files."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from distdiff.report.curves import scaling_figure
from distdiff.report.page import write_page
from distdiff.report.table import accuracy_rows, comparison_rows, measure_notes, measure_rows
from distdiff.study.results import StudyResults
from distdiff.study.statistics import Interval, mean_interval


def write_report(results: StudyResults, config: DictConfig, samples: Path, legend: list[str], path: Path) -> None:
    """Fills the template `report.html` with the results, and writes the page to `path`.

    All text is escaped. `samples` is the file of the sample grid, and `legend` has the titles of the grid's rows.
    """
    write_page(
        "report.html",
        path,
        results=results,
        accuracies=accuracy_rows(results),
        comparisons=comparison_rows(results),
        measures=measure_rows(results),
        notes=measure_notes(results),
        plot=Markup(accuracy_plot(results)),
        scaling=Markup(_svg(scaling_figure(results))) if results.factors else None,
        samples=base64.b64encode(samples.read_bytes()).decode(),
        legend=legend,
        timing=results.timing,
        config=OmegaConf.to_yaml(config, resolve=True),
    )


def accuracy_plot(results: StudyResults) -> str:
    """The accuracies, and the differences that the table shows, as an SVG element.

    Each pale dot is a data seed. Each dark dot is a mean, with its 95 % Student t interval if there are several data
    seeds. The intervals of differences are simultaneous. A study of one row has none.
    """
    comparisons = list(results.comparisons.values())
    lines = max(len(results.rows), len(comparisons))
    figure = Figure(figsize=(9, 1 + 0.32 * lines), layout="constrained")
    accuracies, differences = figure.subplots(1, 2)
    means = [row.mean("accuracy") for row in results.rows]
    intervals = [mean_interval(row.accuracies) for row in results.rows]
    _dots(accuracies, [row.method for row in results.rows], means, intervals)
    for place, row in enumerate(results.rows):
        accuracies.plot(row.accuracies, [place] * len(row.accuracies), "o", color="tab:blue", alpha=0.35, markersize=4)
    accuracies.set_xlabel(f"accuracy ({results.split})")
    names = [f"{comparison.method} − {comparison.baseline}" for comparison in comparisons]
    differences.set_visible(bool(names))
    _dots(differences, names, [each.mean for each in comparisons], [each.simultaneous for each in comparisons])
    differences.axvline(0, color="0.7", linewidth=1, zorder=0)
    differences.set_xlabel("difference in accuracy")
    return _svg(figure)


def _svg(figure: Figure) -> str:
    """The figure as an SVG element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")  # this uses its own canvas, not matplotlib's current backend
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _dots(axes: Axes, names: Sequence[str], means: Sequence[float], intervals: Sequence[Interval | None]) -> None:
    """A line for each name, from the top down, with a dot and, where it is known, an interval."""
    for place, (mean, interval) in enumerate(zip(means, intervals, strict=True)):
        ends = None if interval is None else [[mean - interval.low], [interval.high - mean]]
        axes.errorbar([mean], [place], xerr=ends, fmt="o", color="0.15", capsize=3, markersize=5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
