"""The scaling curve of a study with `study.factors`: accuracies against the number of copies, a curve for each row."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from distdiff.study.results import StudyResults
from distdiff.study.statistics import mean_interval

Curve = Mapping[int, Sequence[float]]  # the accuracies of the data seeds, by factor
APART = 0.04  # how far curves stand apart, as a share of the factor, so that their intervals do not cover each other


def scaling_curves(results: StudyResults) -> dict[str, Curve]:
    """The accuracies of each row that adds images, by the factor of `study.factors`."""
    curves: dict[str, dict[int, Sequence[float]]] = {}
    for row in results.rows:
        if row.factor is not None:
            curves.setdefault(row.base, {})[row.factor] = row.accuracies
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}


def scaling_figure(results: StudyResults) -> Figure:
    """The curves of `study.factors`, and a level line for each row that has no factor.

    Every mean has its 95 % Student t interval, if there are several data seeds: a bar on a curve, a band around a level.
    """
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(row for row in results.rows if row.factor is None):
        interval, style = mean_interval(row.accuracies), ("--", ":", "-.")[place % 3]
        axes.axhline(fmean(row.accuracies), color="0.3", linestyle=style, linewidth=1, label=row.method)
        if interval is not None:
            axes.axhspan(interval.low, interval.high, color="0.3", alpha=0.1, linewidth=0)
    curves = scaling_curves(results)
    for place, (name, curve) in enumerate(curves.items()):
        means = [fmean(accuracies) for accuracies in curve.values()]
        halves = [_half(accuracies) for accuracies in curve.values()]
        shift = 1 + APART * (place - (len(curves) - 1) / 2)
        axes.errorbar([factor * shift for factor in curve], means, yerr=halves, marker="o", capsize=3, label=name)
    axes.set_xscale("log")
    axes.set_xticks(results.factors, map(str, results.factors))
    axes.minorticks_off()
    axes.set_xlabel("factor: copies of each source")
    axes.set_ylabel(f"accuracy ({results.split})")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def _half(accuracies: Sequence[float]) -> float:
    """Half of the interval of a mean; 0 if there is none."""
    interval = mean_interval(accuracies)
    return 0.0 if interval is None else (interval.high - interval.low) / 2
