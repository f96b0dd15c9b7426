"""Accuracies as dots with intervals, and differences of accuracies as forest plots."""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distdiff.report.figures import label, styled
from distdiff.report.palette import GROUND, INK, MUTED, SERIES
from distdiff.study.comparisons import Comparison
from distdiff.study.methods import BEST
from distdiff.study.results import StudyResults
from distdiff.study.runs import MethodResult
from distdiff.study.statistics import Interval, mean_interval

WIDTH, LINE = 5.4, 0.26  # inches: the width of a figure, and the height of a line in it
BELOW = 0.24  # of a line: how far the dots of data seeds stand below their mean
MOST = 40  # rows in a figure; the table has all of them


def shown_rows(results: StudyResults) -> list[MethodResult]:
    """At most `MOST` rows: those that others are compared with, the one that the job's keys choose, and the most accurate."""
    subtracted = {comparison.baseline for comparison in results.comparisons.values()}  # of each factor
    first = [row for row in results.rows if row.method in (*subtracted, *results.baselines, results.chosen)]
    others = sorted((row for row in results.rows if row not in first), key=lambda row: -fmean(row.accuracies))
    kept = {row.method for row in [*first, *others][:MOST]}
    return [row for row in results.rows if row.method in kept]


def dashed_row(results: StudyResults) -> MethodResult | None:
    """The first row of `results.baselines`; None without one, or where it stands for the rows of several factors."""
    return results.row(results.baselines[0]) if results.baselines else None


@styled()
def accuracy_figure(results: StudyResults) -> Figure:
    """A line for each row: the mean with its 95 % Student t interval, and below it a small dot for each data seed.

    A single data seed has no interval. The dashed line is the accuracy of `dashed_row`.
    """
    rows = shown_rows(results)
    figure = Figure(figsize=(WIDTH, 0.7 + LINE * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.plot(
            row.accuracies,
            [place + BELOW] * len(row.accuracies),
            "o",
            color=SERIES[0],
            alpha=0.7,
            markersize=4,
            markeredgewidth=0,
        )
        _dot(axes, place, row.mean("accuracy"), mean_interval(row.accuracies), filled=True)
    if (dashed := dashed_row(results)) is not None:
        axes.axvline(fmean(dashed.accuracies), color=MUTED, linewidth=1, linestyle="--", zorder=0)
    _lines(axes, [row.method for row in rows])
    axes.set_xlabel(f"accuracy on {results.split} images")
    return figure


def groups(results: StudyResults) -> dict[str, list[Comparison]]:
    """The differences of the rows that figures show, by the row of `results.baselines` that they are about."""
    found: dict[str, list[Comparison]] = {}
    seen: set[tuple[str, str]] = set()
    for baseline in results.baselines:
        for row in shown_rows(results):
            comparison = results.against(row, baseline)
            if comparison is not None and (comparison.method, comparison.baseline) not in seen:
                seen.add((comparison.method, comparison.baseline))
                found.setdefault(baseline, []).append(comparison)
    return found


@styled()
def difference_figure(results: StudyResults) -> Figure:
    """A forest plot for each of `results.baselines`: the mean differences with their simultaneous intervals, if known.

    A difference whose interval excludes zero is a filled dot.
    """
    found = groups(results)
    counts = [len(comparisons) for comparisons in found.values()]
    height = 0.8 + sum(0.45 + LINE * count for count in counts)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    rows = figure.subplots(len(found), 1, sharex=True, squeeze=False, height_ratios=[count + 1 for count in counts])
    for (baseline, comparisons), (axes,) in zip(found.items(), rows, strict=True):
        for place, comparison in enumerate(comparisons):
            _dot(axes, place, comparison.mean, comparison.simultaneous, comparison.settled)
        axes.axvline(0, color=MUTED, linewidth=1, zorder=0)
        _lines(axes, [comparison.method for comparison in comparisons])
        axes.set_title(f"minus {label(baseline)}{_also(results, baseline, comparisons)}", loc="left", fontsize=9.5)
    rows[-1][0].set_xlabel("difference in accuracy: right of zero is better")
    return figure


def _also(results: StudyResults, baseline: str, comparisons: Sequence[Comparison]) -> str:
    """What else than the row `baseline` is subtracted, in words: its rows of other factors, or the one with `_best`."""
    others = [results.row(comparison.baseline) for comparison in comparisons if comparison.baseline != baseline]
    copies = " with as many copies" if any(row.factor is not None for row in others) else ""
    best = next((row.base for row in others if row.best and row.base != baseline), None)
    return copies + (f", other rows in {BEST} minus {best}" if best else "")


def _dot(axes: Axes, place: int, mean: float, interval: Interval | None, filled: bool) -> None:
    ends = None if interval is None else [[mean - interval.low], [interval.high - mean]]
    face = INK if filled else GROUND
    axes.errorbar(
        [mean], [place], xerr=ends, fmt="o", color=INK, markerfacecolor=face, capsize=3, markersize=5, linewidth=1.2
    )


def _lines(axes: Axes, names: Sequence[str]) -> None:
    """A line for each name, from the top down."""
    axes.set_yticks(range(len(names)), map(label, names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=6)
