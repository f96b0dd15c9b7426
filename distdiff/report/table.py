"""Results as tables: a study's methods, and an expanded dataset's measures."""

import re
from collections.abc import Mapping

from rich import box
from rich.table import Table

from distdiff.console.progress import console
from distdiff.metrics.base import Metric
from distdiff.metrics.measuring import Measured
from distdiff.metrics.reference import Reference
from distdiff.study.comparisons import Comparison
from distdiff.study.results import StudyResults
from distdiff.study.runs import MethodResult
from distdiff.study.statistics import Interval

METHOD, NOTHING, P_VALUE = "method", "–", "p"
MARK = "*"  # on a figure that has a footnote
LONG = 14  # characters; a longer title has one word per line
ARROWS = {True: " ↑", False: " ↓", None: ""}


def print_results(results: StudyResults) -> None:
    """Prints the accuracies and the measures, one row per method in each table, then the conclusions."""
    heading = f"{results.dataset}: accuracy on {results.split} data, {results.design}"
    console.print()
    console.print(_table(heading, *accuracy_rows(results)))
    for line in results.captions():
        console.print(line)
    if len(rows := measure_rows(results)) > 1:
        console.print()
        console.print(_table("expanded images against the real ones", *rows))
        for line in measure_notes(results):
            console.print(line)
    for line in results.headline():
        console.print(line)


def _table(heading: str, titles: list[str], *rows: list[str]) -> Table:
    table = Table(title=heading, box=box.SIMPLE_HEAD, title_justify="left")
    for name in titles:
        words = re.split(r" (?![↑↓])", name) if len(name) > LONG else [name]  # an arrow stays with its word
        table.add_column("\n".join(words), justify="left" if name == METHOD else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def print_measures(
    measured: Measured, metrics: Mapping[str, Metric], reference: Reference, judge_accuracy: float | None
) -> None:
    """Prints one row per metric, with its value, its baseline value and the real images used for the baseline.

    Any remarks on these values follow the table. If `judge_accuracy` is given, the last line prints this accuracy of
    the judge, which is the classifier that all metrics rely on.
    """
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("baseline value", justify="right", no_wrap=True)
    table.add_column("baseline on")
    for name, metric in metrics.items():
        known = reference.values[name]
        if known is None:
            images = "too few real images"
        elif metric.needs_labels:
            images = f"{reference.num_held_out:,} held-out real images"
        else:
            images = f"two halves of the real images, {reference.num_half:,} each"
        value = marked(f"{measured.values[name]:.4f}", name in measured.remarks)
        baseline = marked(_number(known, ".4f"), name in reference.remarks)
        table.add_row(title(name, metric.higher_is_better), value, baseline, images)
    console.print()
    console.print(table, soft_wrap=False)
    baselines = {f"baseline value of {name}": remark for name, remark in reference.remarks.items()}
    for line in footnotes(measured.remarks | baselines):
        console.print(line)
    if judge_accuracy is not None:
        held_out = f"{reference.num_held_out:,} held-out real images"
        console.print(f"The judge labels {judge_accuracy:.1%} of {held_out} rightly.")


def marked(text: str, has_remark: bool) -> str:
    """The number `text`, followed by a footnote mark if the number has a remark, and otherwise by a space.

    The digits of a right-aligned column therefore stay aligned.

    >>> marked("12.3", has_remark=True), marked("12.3", has_remark=False)
    ('12.3*', '12.3 ')
    """
    return text + (MARK if has_remark else " ")


def footnotes(remarks: Mapping[str, str]) -> list[str]:
    """One line per remark, with the name of the measure that the remark is about.

    >>> footnotes({"frechet_distance": "from few images"})
    ['* frechet distance: from few images']
    """
    return [f"{MARK} {name.replace('_', ' ')}: {remark}" for name, remark in remarks.items()]


def accuracy_rows(results: StudyResults) -> list[list[str]]:
    """The column titles, then one row per method.

    A row has the method's accuracy, and its differences from the accuracies of `results.baselines`, each with Holm's
    adjusted p-value if there are several data seeds.
    """
    has_p_values = any(comparison.holm is not None for comparison in results.comparisons.values())
    titles = [METHOD, "images", "accuracy"]
    for baseline in results.baselines:
        titles += [f"vs {baseline}", P_VALUE] if has_p_values else [f"vs {baseline}"]
    rows = []
    for row in results.rows:
        cells = [row.method, f"{row.runs[0].num_train:,}", spread(row.mean("accuracy"), row.accuracy_std)]
        for baseline in results.baselines:
            comparison = results.against(row, baseline)
            cells += [half_width(comparison), *([p_value(comparison and comparison.holm)] if has_p_values else [])]
        rows.append(cells)
    return [titles, *rows]


def comparison_rows(results: StudyResults) -> list[list[str]]:
    """The column titles, then one row for each difference with both of its simultaneous intervals; empty without these."""
    titles = ["difference", "mean", "Student t interval", "bootstrap interval", "p", f"Holm's {P_VALUE}"]
    rows = [
        [
            f"{comparison.method} − {comparison.baseline}",
            f"{comparison.mean:+.3f}",
            _ends(comparison.simultaneous),
            _ends(comparison.bootstrap),
            p_value(comparison.difference.p_value),
            p_value(comparison.holm),
        ]
        for comparison in results.comparisons.values()
        if comparison.simultaneous is not None
    ]
    return [titles, *rows] if rows else []


def measure_rows(results: StudyResults) -> list[list[str]]:
    """The column titles, then one row for each method that has measures of its own."""
    titles = [title(name, higher_is_better) for name, higher_is_better in results.measures.items()]
    noted = {name for row in results.rows for name in row.remarks}
    rows = [
        [row.method, *(_noted(row, name, name in noted) for name in results.measures)]
        for row in results.rows
        if any(run.measures for run in row.runs) and not results.repeats(row)
    ]
    return [[METHOD, *titles], *rows]


def measure_notes(results: StudyResults) -> list[str]:
    """The footnotes of the measures, and a line with the accuracy of the judge, on which the measures rely."""
    notes = {name: remark for row in results.rows for name, remark in row.remarks.items()}
    lines = footnotes(notes)
    if results.judge_accuracy is not None:
        lines.append(f"The judge labels {results.judge_accuracy:.1%} of the {results.split} images rightly.")
    return lines


def _noted(row: MethodResult, name: str, column_has_marks: bool) -> str:
    text = _number(row.mean(name), ".3f")
    return marked(text, name in row.remarks) if column_has_marks and text != NOTHING else text


def spread(mean: float, deviation: float | None) -> str:
    """A mean with its standard deviation. `deviation` is None if there is only one value.

    >>> spread(0.5, 0.01), spread(0.5, None)
    ('0.500 ± 0.010', '0.500')
    """
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def title(name: str, higher_is_better: bool | None) -> str:
    """A measure's name in words, with an arrow in the direction that is better.

    >>> title("label_consistency", higher_is_better=True)
    'label consistency ↑'
    """
    return name.replace("_", " ") + ARROWS[higher_is_better]


def half_width(comparison: Comparison | None) -> str:
    """The mean difference and, if known, the half width of its simultaneous interval: `+0.012 ± 0.034`.

    If `comparison` is None, the result is a dash.
    """
    if comparison is None:
        return NOTHING
    if (interval := comparison.simultaneous) is None:
        return f"{comparison.mean:+.3f}"
    return f"{comparison.mean:+.3f} ± {(interval.high - interval.low) / 2:.3f}"


def p_value(value: float | None) -> str:
    """
    >>> p_value(0.0312), p_value(0.0004), p_value(None)
    ('0.031', '<0.001', '–')
    """
    return "<0.001" if value is not None and value < 0.001 else _number(value, ".3f")


def _ends(interval: Interval) -> str:
    return f"[{interval.low:+.3f}, {interval.high:+.3f}]"


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
