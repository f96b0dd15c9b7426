"""The scaling curve of a study with `study.factors`: accuracies against the number of copies, a curve for each row."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from distdiff.report.figures import label, styled
from distdiff.report.palette import MARKERS, MUTED
from distdiff.study.results import StudyResults
from distdiff.study.runs import MethodResult
from distdiff.study.statistics import mean_interval

Curve = Mapping[int, Sequence[float]]  # the accuracies of the data seeds, by factor
MOST, MOST_LEVELS = len(MARKERS), 4
NAME = 24  # characters of a name
APART = 0.04  # how far curves stand apart, as a share of the factor, so that their intervals do not cover each other


def scaling_curves(results: StudyResults) -> dict[str, Curve]:
    """The accuracies of each row that adds images, by the factor of `study.factors`."""
    curves: dict[str, dict[int, Sequence[float]]] = {}
    for row in results.rows:
        if row.factor is not None:
            curves.setdefault(row.base, {})[row.factor] = row.accuracies
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}


@styled()
def scaling_figure(results: StudyResults) -> Figure:
    """The curves of `study.factors`, and a level line for each row that has no factor.

    Every mean has its 95 % Student t interval, if there are several data seeds: a bar on a curve, a band around a level.
    Of many rows, at most `MOST` curves and `MOST_LEVELS` levels are drawn: the chosen one and the most accurate.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes, shown = figure.subplots(), {}
    for place, row in enumerate(_levels(results)):
        interval, style = mean_interval(row.accuracies), ("--", ":", "-.")[place % 3]
        shown[row.method] = axes.axhline(fmean(row.accuracies), color=MUTED, linestyle=style, linewidth=1)
        if interval is not None:
            axes.axhspan(interval.low, interval.high, color=MUTED, alpha=0.1, linewidth=0)
    curves = _best_curves(results)
    for place, (name, curve) in enumerate(curves.items()):
        means = [fmean(accuracies) for accuracies in curve.values()]
        halves = [_half(accuracies) for accuracies in curve.values()]
        shift = 1 + APART * (place - (len(curves) - 1) / 2)
        shown[name] = axes.errorbar(
            [factor * shift for factor in curve], means, yerr=halves, marker=MARKERS[place], capsize=3
        )
    axes.set_xscale("log")
    axes.set_xticks(results.factors, map(str, results.factors))
    axes.minorticks_off()
    axes.set_xlabel("factor: copies of each source")
    axes.set_ylabel(f"accuracy ({results.split})")
    figure.legend(list(shown.values()), [label(name, NAME) for name in shown], loc="outside right upper")
    return figure


def _levels(results: StudyResults) -> list[MethodResult]:
    rows = [row for row in results.rows if row.factor is None]
    kept = sorted(rows, key=lambda row: (row.method not in results.baselines, -fmean(row.accuracies)))[:MOST_LEVELS]
    return [row for row in rows if row in kept]


def _best_curves(results: StudyResults) -> dict[str, Curve]:
    curves, chosen = scaling_curves(results), results.row(results.chosen)
    of_chosen = None if chosen is None else chosen.base
    order = sorted(curves, key=lambda name: (name != of_chosen, -max(map(fmean, curves[name].values()))))
    return {name: curve for name, curve in curves.items() if name in order[:MOST]}


def _half(accuracies: Sequence[float]) -> float:
    """Half of the interval of a mean; 0 if there is none."""
    interval = mean_interval(accuracies)
    return 0.0 if interval is None else (interval.high - interval.low) / 2
