"""Results as tables: a study's methods, and an expanded dataset's measures."""

import re
from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from distdiff.console.progress import console
from distdiff.metrics.base import Metric
from distdiff.metrics.comparing import Compared
from distdiff.metrics.config import HELD_OUT, TRAINING
from distdiff.metrics.intervals import LEVEL
from distdiff.metrics.measuring import Measured
from distdiff.metrics.reference import Reference, in_order
from distdiff.study.comparisons import Comparison
from distdiff.study.results import StudyResults
from distdiff.study.runs import MethodResult
from distdiff.study.statistics import Interval

METHOD, NOTHING, P_VALUE = "method", "–", "p"
FINE = ".4f"  # the form of measures where there is room
MARK = "*"  # on a figure that has a footnote
LONG, NARROW = 14, 8  # characters; a longer title has one word per line; the second is for tables of many columns
MANY = 8  # columns; a table of more is set closely
CLOSE = (0, 1, 0, 0)  # the padding of cells in tables of many columns
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
        longest = NARROW if len(rows[0]) > MANY else LONG
        console.print(_table("expanded images against the real ones", *rows, longest=longest))
        for line in measure_notes(results):
            console.print(line)
    for line in results.headline():
        console.print(line)


def _table(heading: str, titles: list[str], *rows: list[str], longest: int = LONG) -> Table:
    table = Table(
        title=heading, box=box.SIMPLE_HEAD, title_justify="left", padding=CLOSE if longest == NARROW else (0, 1)
    )
    for name in titles:
        table.add_column(lines_of(name, longest), justify="left" if name == METHOD else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def lines_of(name: str, longest: int) -> str:
    """A title with one word per line, if it has more than `longest` characters; an arrow stays with a short word.

    >>> lines_of("images per second ↑", 14), lines_of("near copies ↓", 8), lines_of("diversity ↑", 8)
    ('images\\nper\\nsecond ↑', 'near\\ncopies ↓', 'diversity\\n↑')
    """
    if len(name) <= longest:
        return name
    words = re.split(r" (?![↑↓])", name)
    return "\n".join(word if len(word) <= longest else word.replace(" ", "\n") for word in words)


def print_measures(
    measured: Measured, metrics: Mapping[str, Metric], reference: Reference, judge_accuracy: float | None
) -> None:
    """Prints one row per metric, with its value, the interval of this, and its baseline value.

    There are further columns for the values against held-out images, for the least and the greatest value of a class,
    and for the other features. Each value that has a remark is marked, and the remarks follow the table; a remark that is
    not on all values of its metric names the columns that it is on. If `judge_accuracy` is given, the last line
    prints this accuracy of the judge, which is the classifier that all metrics rely on.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=CLOSE)
    first, *others = measured.views
    against = measured.views[first][TRAINING]
    held_out = measured.views[first].get(HELD_OUT)
    intervals = [f"{LEVEL:.0%} interval"] if against.intervals else []
    columns = ["value", *intervals, *(["held-out"] if held_out else []), *(["classes"] if against.classes else [])]
    for name in ("metric", *columns, *others, "baseline value"):
        table.add_column(name.replace(" ", "\n"), justify="left" if name == "metric" else "right", no_wrap=True)
    notes: dict[str, dict[str, str]] = {name: {} for name in metrics}  # by metric and column
    for name in in_order(metrics, measured.remarks):
        # Predicted labels are the judge's in all features.
        further = {} if metrics[name].needs_labels else {view: measured.views[view][TRAINING] for view in others}
        compared = {"value": against, **({"held-out": held_out} if held_out else {}), **further}
        notes[name] = {column: found.remarks.get(name) for column, found in compared.items()}
        cells = [_cell(against, name)]
        cells += [_pair(against.intervals.get(name))] if intervals else []
        cells += [_cell(held_out, name)] if held_out else []
        cells += [_span([each.values.get(name) for each in against.classes.values()])] if against.classes else []
        cells += [_cell(further.get(view), name) for view in others]
        cells += [_noted_number(reference.values[name], name in reference.remarks)]
        table.add_row(title(name, metrics[name].higher_is_better), *cells)
    console.print()
    console.print(table, soft_wrap=False)
    for line in _baseline_lines(metrics, reference):
        console.print(line)
    baselines = {f"baseline value of {name}": remark for name, remark in reference.remarks.items()}
    for line in footnotes(_by_columns(notes) | baselines):
        console.print(line)
    if judge_accuracy is not None:
        real = f"{reference.num_held_out:,} held-out real images"
        console.print(f"The judge labels {judge_accuracy:.1%} of {real} rightly.")


def _baseline_lines(metrics: Mapping[str, Metric], reference: Reference) -> list[str]:
    """Says which real images the baseline values compare; without a sentence for values that are not there."""
    known = [name for name in metrics if reference.values[name] is not None]
    of_labels = [name for name in known if metrics[name].needs_labels]
    lines = []
    if len(known) > len(of_labels):
        lines.append(f"Baseline values: two halves of the real images, {reference.num_half:,} each.")
    if of_labels:
        names = " and ".join(name.replace("_", " ") for name in of_labels)
        lines.append(f"Baseline value of {names}: {reference.num_held_out:,} held-out real images.")
    return lines


def _by_columns(notes: Mapping[str, Mapping[str, str | None]]) -> dict[str, str]:
    """The remarks of each metric, by the metric and the columns that a remark is on, unless that is all columns.

    >>> _by_columns({"density": {"value": "from few images", "held-out": "from few images"}, "recall": {"value": None}})
    {'density': 'from few images'}
    >>> _by_columns({"density": {"value": "from few images", "pixels": None, "guide": "from few images"}})
    {'density (value, guide)': 'from few images'}
    """
    found = {}
    for name, of_columns in notes.items():
        for remark in dict.fromkeys(remark for remark in of_columns.values() if remark is not None):
            columns = [column for column, each in of_columns.items() if each == remark]
            found[name if len(columns) == len(of_columns) else f"{name} ({', '.join(columns)})"] = remark
    return found


def _cell(found: Compared | None, name: str) -> str:
    """The value of the metric `name`, marked if there is a remark on it; a dash if there are no values."""
    return (
        marked(NOTHING, has_remark=False) if found is None else _noted_number(found.values[name], name in found.remarks)
    )


def _noted_number(value: float | None, has_remark: bool) -> str:
    return marked(shown_number(value, FINE), has_remark)


def _pair(ends: tuple[float, float] | None) -> str:
    return NOTHING if ends is None else " to ".join(shown_number(end, FINE) for end in ends)


def _span(values: Sequence[float | None]) -> str:
    """The least and the greatest of the values of classes."""
    known = [value for value in values if value is not None]
    return f"{shown_number(min(known), '.3f')} to {shown_number(max(known), '.3f')}" if known else NOTHING


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
        if comparison.difference.count > 1
    ]
    return [titles, *rows] if rows else []


def measure_rows(results: StudyResults) -> list[list[str]]:
    """The column titles, then one row for each method that has measures of its own."""
    noted = {name for row in results.rows for name in row.remarks}
    names = in_order(results.measures, noted)
    titles = [title(name, results.measures[name]) for name in names]
    rows = [
        [row.method, *(_noted(row, name, name in noted) for name in names)]
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
    text = shown_number(row.mean(name), ".3f")
    return marked(text, name in row.remarks) if column_has_marks else text


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
    return "<0.001" if value is not None and value < 0.001 else shown_number(value, ".3f")


def _ends(interval: Interval | None) -> str:
    return NOTHING if interval is None else f"[{interval.low:+.3f}, {interval.high:+.3f}]"


def shown_number(value: float | None, form: str = ".3f") -> str:
    """The number in the given form, or in two digits and a power of ten if the form would hide it.

    >>> shown_number(0.25, ".3f"), shown_number(-0.00042, ".3f"), shown_number(0.0, ".3f"), shown_number(None, ".3f")
    ('0.250', '-4.2e-04', '0.000', '–')
    >>> shown_number(0.25, "+.3f"), shown_number(0.00042, "+.3f")
    ('+0.250', '+4.2e-04')
    """
    if value is None:
        return NOTHING
    sign, _, digits = form.removesuffix("f").partition(".")
    return format(value, f"{sign}.1e" if 0 < abs(value) < 10 ** -int(digits) else form)
