"""The study's result on the console."""

from rich import box
from rich.table import Table

from distdiff.console.progress import console
from distdiff.study.methods import ORIGINAL, UNGUIDED
from distdiff.study.results import MethodResult, StudyResults
from distdiff.study.statistics import PairedDifference


def print_results(results: StudyResults) -> None:
    """Prints one row a method, then what they say."""
    seeds = len(results.rows[0].seeds)
    table = Table(
        title=f"{results.dataset}: accuracy on {results.split} data, {seeds} seed{'s' if seeds > 1 else ''}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for row in results.rows:
        table.add_row(*cells(results, row))
    console.print()
    console.print(table)
    for line in results.headline():
        console.print(line)


COLUMNS = (
    "method",
    "images",
    "accuracy",
    "vs original",
    "vs none",
    "Frechet",
    "consistent",
    "coverage",
    "energy",
    "img/s",
)

NOTHING = "–"


def cells(results: StudyResults, row: MethodResult) -> list[str]:
    """A method's row as text, in the order of `COLUMNS`."""
    return [
        row.method,
        f"{row.seeds[0].num_train:,}",
        f"{row.mean('accuracy'):.3f} ± {row.accuracy_std:.3f}",
        interval(results.difference(row.method, ORIGINAL)),
        interval(results.difference(row.method, UNGUIDED)),
        _number(row.mean("frechet_distance"), ".1f"),
        _number(row.mean("label_consistency"), ".3f"),
        _number(row.mean("coverage"), ".3f"),
        _number(row.mean("energy_after"), ".3f"),
        _number(row.mean("images_per_second"), ".1f"),
    ]


def interval(difference: PairedDifference | None) -> str:
    """`+0.012 ± 0.034`: the mean difference and the half width of its 95 % interval; a dash without one."""
    if difference is None:
        return NOTHING
    if difference.low is None:
        return f"{difference.mean:+.3f}"
    return f"{difference.mean:+.3f} ± {(difference.high - difference.low) / 2:.3f}"


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
