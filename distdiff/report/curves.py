"""A figure of accuracies against a number: one curve for each row of a study."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from distdiff.study.results import StudyResults
from distdiff.study.statistics import mean_interval

Curve = Mapping[float, Sequence[float]]  # the accuracies of the data seeds, by the number on the horizontal axis
APART = 0.04  # how far curves stand apart, as a share of the number, so that their intervals do not cover each other


def scaling_curves(results: StudyResults) -> dict[str, Curve]:
    """The accuracies of each row that adds images, by the factor of `study.factors`."""
    curves: dict[str, dict[float, Sequence[float]]] = {}
    for row in results.rows:
        if row.factor is not None:
            curves.setdefault(row.base, {})[row.factor] = row.accuracies
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}


def scaling_plot(results: StudyResults) -> str:
    """An SVG element: the curves of `study.factors`, and a level line for each row that has no factor."""
    levels = {row.method: row.accuracies for row in results.rows if row.factor is None}
    return curve_plot(scaling_curves(results), levels, "factor: copies of each source", f"accuracy ({results.split})")


def write_scaling(results: StudyResults, path: Path) -> None:
    """Writes the figure of `scaling_plot` as an SVG file."""
    path.write_text(scaling_plot(results) + "\n", encoding="utf-8")


def curve_plot(curves: Mapping[str, Curve], levels: Mapping[str, Sequence[float]], across: str, up: str) -> str:
    """The means of the accuracies as an SVG element.

    Every mean has its 95 % Student t interval, if there are several data seeds: a bar on a curve, a band around a level.
    `across` and `up` are the titles of the axes.
    """
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for place, (name, accuracies) in enumerate(levels.items()):
        interval, style = mean_interval(accuracies), ("--", ":", "-.")[place % 3]
        axes.axhline(fmean(accuracies), color="0.3", linestyle=style, linewidth=1, label=name)
        if interval is not None:
            axes.axhspan(interval.low, interval.high, color="0.3", alpha=0.1, linewidth=0)
    for place, (name, curve) in enumerate(curves.items()):
        means = [fmean(accuracies) for accuracies in curve.values()]
        halves = [_half(accuracies) for accuracies in curve.values()]
        shift = 1 + APART * (place - (len(curves) - 1) / 2)
        axes.errorbar([number * shift for number in curve], means, yerr=halves, marker="o", capsize=3, label=name)
    numbers = sorted({number for curve in curves.values() for number in curve})
    axes.set_xscale("log")
    axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axes.minorticks_off()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _half(accuracies: Sequence[float]) -> float:
    """Half of the interval of a mean; 0 if there is none."""
    interval = mean_interval(accuracies)
    return 0.0 if interval is None else (interval.high - interval.low) / 2
