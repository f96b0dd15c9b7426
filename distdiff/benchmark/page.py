"""A benchmark's results on the console, as a page and as a figure."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from distdiff.benchmark.measuring import RowSpeed
from distdiff.benchmark.parts import BACKWARD, DECODER, ENCODER, ENCODING, INPUT, NETWORK, REST, WRITING
from distdiff.benchmark.results import BenchmarkResults
from distdiff.console.progress import console

NOTHING = "–"
PARTS = (
    NETWORK,
    NETWORK + BACKWARD,
    DECODER,
    DECODER + BACKWARD,
    ENCODER,
    ENCODER + BACKWARD,
    ENCODING,
    WRITING,
    INPUT,
    REST,
)
COLUMNS = ("row", "batch", "images/s", "time against {baseline}", "peak GB", "FLOPs against the floor")
LEGEND = (
    "*Images/s* is the median of {repeats}. *Time* is the time of an image as a multiple of the time that {baseline} takes, "
    "with a 95 % interval over the turns. *Floor* means the FLOPs that {baseline} spends in the denoising network. Parts "
    "are measured in a run of their own, in which the device is waited for at the end of each part."
)


def print_speeds(results: BenchmarkResults) -> None:
    """Prints a row for each setting."""
    table = Table(box=box.SIMPLE_HEAD)
    for place, title in enumerate(_titles(results)):
        table.add_column(title, justify="right" if place else "left", no_wrap=True)
    for row in results.rows:
        table.add_row(*_cells(results, row))
    console.print(table)


def benchmark_page(results: BenchmarkResults, command: str) -> str:
    """The page `benchmark.md`: speeds, and milliseconds per image of each part."""
    found = results.as_dict()
    facts = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    legend = LEGEND.format(baseline=results.baseline, repeats=f"{len(results.base.rates)} runs")
    lines = [
        "# Benchmark",
        "",
        f"`{command}` on {results.device} ({facts}), images of {results.resolution} pixels.",
        "",
        legend,
        "",
    ]
    lines += _markdown(_titles(results), [_cells(results, row) for row in results.rows])
    if any(row.seconds for row in results.rows):
        shown = _parts(results.rows)
        lines += ["", "Milliseconds per image by part:", ""]
        lines += _markdown(
            ["row", *shown], [[row.name, *(_milliseconds(row, part) for part in shown)] for row in results.rows]
        )
    return "\n".join(lines) + "\n"


def benchmark_figure(results: BenchmarkResults, path: Path) -> None:
    """Draws the seconds per image of each row, divided into parts if these were measured."""
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(results.rows)), layout="constrained")
    axes = figure.subplots()
    names = [row.name for row in results.rows]
    parts = _parts(results.rows)
    left = [0.0] * len(names)
    for part in parts:
        widths = [row.seconds.get(part, 0.0) for row in results.rows]
        axes.barh(names, widths, left=left, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    if not parts:
        axes.barh(names, [1 / row.rate for row in results.rows])
    axes.invert_yaxis()
    axes.set_xlabel("seconds per image")
    if parts:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    figure.savefig(path, dpi=150)


def _parts(rows: Sequence[RowSpeed]) -> list[str]:
    return [part for part in PARTS if any(row.seconds.get(part) for row in rows)]


def _titles(results: BenchmarkResults) -> list[str]:
    return [title.format(baseline=results.baseline) for title in COLUMNS]


def _cells(results: BenchmarkResults, row: RowSpeed) -> list[str]:
    ratio, floor = results.times_baseline(row), results.times_floor(row)
    interval = "" if ratio.low is None or row.name == results.baseline else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
    return [
        row.name,
        str(row.batch_size),
        f"{row.rate:.3g}",
        f"{ratio.mean:.2f}{interval}",
        NOTHING if row.peak_memory is None else f"{row.peak_memory / 1e9:.2f}",
        NOTHING if floor is None else f"{floor:.2f}",
    ]


def _milliseconds(row: RowSpeed, part: str) -> str:
    return f"{1000 * row.seconds[part]:.3g}" if part in row.seconds else NOTHING


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows)]
