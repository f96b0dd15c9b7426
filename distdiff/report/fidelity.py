"""How near the rows' images are to the real ones against how much they vary, with accuracy as colour."""

import math
from collections.abc import Mapping, Sequence
from itertools import product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, offset_copy

from distdiff.report.dots import WIDTH
from distdiff.report.figures import COLOUR_MAP, label, styled
from distdiff.report.palette import MUTED
from distdiff.study.results import StudyResults
from distdiff.study.runs import MethodResult
from distdiff.wording import some

FIDELITY = ("frechet_distance", "kernel_distance")  # lower is nearer
DIVERSITY = ("diversity", "coverage")  # higher is more varied
MOST_NAMES = 16  # in the figure
HEIGHT, NAME = 4.2, 24  # inches, and characters
DOT = 6  # pixels of matplotlib: half the width of a dot


def axes_of(results: StudyResults) -> tuple[str, str] | None:
    """The measures of fidelity and of diversity that the figure shows; None if no row has one of each.

    A pair that only one row has comes last. Of the others, a distance whose values have a remark, as from too few images,
    comes after one without, and a pair that fewer rows have after one that more have.
    """

    def rank(pair: tuple[str, str]) -> tuple[bool, bool, int]:
        rows = points(results, *pair)
        return len(rows) < 2, any(pair[0] in row.remarks for row in rows), -len(rows)

    pairs = [pair for pair in product(FIDELITY, DIVERSITY) if points(results, *pair)]
    return min(pairs, key=rank, default=None)


def points(results: StudyResults, fidelity: str, diversity: str) -> list[MethodResult]:
    """The rows with images of their own that have both measures."""
    return [row for row in _with_images(results) if _is_known(row.mean(fidelity)) and _is_known(row.mean(diversity))]


def lacking(results: StudyResults, fidelity: str, diversity: str) -> list[MethodResult]:
    """The rows with images of their own that lack one of the measures, as runs of an earlier study with other metrics do."""
    drawn = points(results, fidelity, diversity)
    return [row for row in _with_images(results) if row not in drawn]


def fidelity_caption(results: StudyResults, fidelity: str, diversity: str) -> str:
    """What the figure shows, and what it does not."""
    drawn, left_out = points(results, fidelity, diversity), lacking(results, fidelity, diversity)
    names = [name.replace("_", " ") for name in (fidelity, diversity)]
    lines = [
        f"A dot for each row with images of its own: means over data seeds of {names[0]} and {names[1]}, and of accuracy."
    ]
    if len(drawn) > MOST_NAMES:
        lines.append(f"Names stand beside {MOST_NAMES} of {len(drawn)} dots: the chosen row and the most accurate.")
    remarked = [name for name in (fidelity, diversity) if any(name in row.remarks for row in drawn)]
    if remarked:
        said = " and ".join(name.replace("_", " ") for name in remarked)
        lines.append(f"There is a remark on the {said}, below the table.")
    if left_out:
        lines.append(
            f"Not drawn, since they lack one of these measures: {some([row.method for row in left_out])}. A dash in the "
            "table stands for it."
        )
    return " ".join(lines)


def _with_images(results: StudyResults) -> list[MethodResult]:
    return [
        row
        for row in results.rows
        if any(run.measures or run.expanded is not None for run in row.runs) and not results.repeats(row)
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
    axes = figure.add_axes((0.13, 0.13, 0.63, 0.83))
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
    bar = figure.colorbar(dots, cax=figure.add_axes((0.79, 0.13, 0.03, 0.83)), format="%.3f")
    bar.set_label(f"accuracy on {results.split} images")
    bar.outline.set_edgecolor(MUTED)
    axes.set_xlabel(f"{fidelity.replace('_', ' ')}: left is nearer to the real images")
    axes.set_ylabel(f"{diversity.replace('_', ' ')}: up is more varied")
    axes.margins(0.12)
    named = sorted(rows, key=lambda row: (row.method != results.chosen, -row.mean("accuracy")))[:MOST_NAMES]
    _name(
        axes,
        {row.method: (row.mean(fidelity), row.mean(diversity)) for row in named},
        list(zip(right, up, strict=True)),
    )
    return figure


def _name(axes: Axes, named: Mapping[str, tuple[float, float]], places: Sequence[tuple[float, float]]) -> None:
    """Writes names beside their dots, each at the nearest place where it covers no other name and none of the dots."""
    axes.autoscale_view()  # until then, matplotlib does not know where the dots are
    taken = [Bbox.from_bounds(x - DOT, y - DOT, 2 * DOT, 2 * DOT) for x, y in axes.transData.transform(places)]
    frame = axes.get_window_extent()
    for name, place in named.items():
        is_right = axes.transData.transform(place)[0] > frame.x0 + 0.6 * frame.width
        text = axes.text(*place, label(name, NAME), ha="right" if is_right else "left", va="center", fontsize=8.5)
        for step in range(4 * len(places)):
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
