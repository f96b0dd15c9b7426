"""How near the rows' images are to the real ones against how much they vary, with accuracy as colour."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, offset_copy

from distdiff.report.dots import WIDTH
from distdiff.report.figures import COLOUR_MAP, label, styled
from distdiff.report.palette import MUTED
from distdiff.study.results import StudyResults
from distdiff.study.runs import MethodResult

FIDELITY = ("frechet_distance", "kernel_distance")  # lower is nearer
DIVERSITY = ("diversity", "coverage")  # higher is more varied
MOST_NAMES = 16  # in the figure
HEIGHT, NAME = 4.2, 24  # inches, and characters
DOT = 6  # pixels of matplotlib: half the width of a dot


def axes_of(results: StudyResults) -> tuple[str, str] | None:
    """The measures of fidelity and of diversity that most rows have; None if one of both was not measured.

    A distance whose values have a remark, as from too few images, comes after one without.
    """
    rows = points(results, *FIDELITY, *DIVERSITY, every=False)

    def first(names: Sequence[str]) -> str | None:
        known = [name for name in names if any(_is_known(row.mean(name)) for row in rows)]
        return min(known, key=lambda name: any(name in row.remarks for row in rows), default=None)

    found = first(FIDELITY), first(DIVERSITY)
    return None if None in found else found


def points(results: StudyResults, *names: str, every: bool = True) -> list[MethodResult]:
    """The rows with images of their own that have all of these measures, or one of them if not `every`."""
    judged = all if every else any
    return [
        row for row in results.rows if judged(row.mean(name) is not None for name in names) and not results.repeats(row)
    ]


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


@styled()
def fidelity_figure(results: StudyResults, fidelity: str, diversity: str) -> Figure:
    """A dot for each row with images: `fidelity` to the right, `diversity` upwards, the accuracy as colour.

    Of many rows, only the chosen one and the most accurate have their names in the figure.
    """
    rows = points(results, fidelity, diversity)
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.add_axes((0.13, 0.13, 0.68, 0.83))
    right, up = [row.mean(fidelity) for row in rows], [row.mean(diversity) for row in rows]
    dots = axes.scatter(
        right,
        up,
        c=[row.mean("accuracy") for row in rows],
        cmap=COLOUR_MAP,
        edgecolors=MUTED,
        linewidths=1,
        s=70,
        zorder=3,
    )
    bar = figure.colorbar(dots, cax=figure.add_axes((0.86, 0.13, 0.03, 0.83)))
    bar.set_label(f"accuracy on {results.split} images")
    bar.outline.set_edgecolor(MUTED)
    axes.set_xlabel(f"{fidelity.replace('_', ' ')}: left is nearer to the real images")
    axes.set_ylabel(f"{diversity.replace('_', ' ')}: up is more varied")
    axes.margins(0.12)
    named = sorted(rows, key=lambda row: (row.method != results.chosen, -row.mean("accuracy")))[:MOST_NAMES]
    _name(axes, named, [(row.mean(fidelity), row.mean(diversity)) for row in named])
    return figure


def _name(axes: Axes, rows: Sequence[MethodResult], places: Sequence[tuple[float, float]]) -> None:
    """Writes names beside their dots, each at the nearest place where it covers no other name and no dot."""
    axes.autoscale_view()  # until then, matplotlib does not know where the dots are
    dots = axes.transData.transform(places)
    taken = [Bbox.from_bounds(x - DOT, y - DOT, 2 * DOT, 2 * DOT) for x, y in dots]
    frame = axes.get_window_extent()
    for row, place, (x, _) in zip(rows, places, dots, strict=True):
        is_right = x > frame.x0 + 0.6 * frame.width
        text = axes.text(*place, label(row.method, NAME), ha="right" if is_right else "left", va="center", fontsize=8.5)
        for step in range(4 * len(rows)):
            offset = (
                -9 if is_right else 9,
                (step + 1) // 2 * (-1) ** step * 6,
            )  # points: 0, then below and above in turn
            text.set_transform(offset_copy(axes.transData, axes.figure, *offset, units="points"))
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
        if offset[1]:  # a line leads from a name that is apart to its dot
            line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", place, offset, textcoords="offset points", arrowprops=line)
