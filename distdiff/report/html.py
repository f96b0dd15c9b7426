"""`report.html`: the report on a study, a single page that needs no other files."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from omegaconf import DictConfig, OmegaConf

from distdiff.metrics.config import LEAST_ACCURACY
from distdiff.report.curves import MOST as MOST_CURVES
from distdiff.report.curves import scaling_curves, scaling_figure
from distdiff.report.dots import accuracy_figure, dashed_row, difference_figure, groups, shown_rows
from distdiff.report.fidelity import MOST_NAMES, axes_of, fidelity_caption, fidelity_figure, lacking, points
from distdiff.report.figures import inline
from distdiff.report.page import write_page
from distdiff.report.samples import Samples
from distdiff.report.table import accuracy_rows, comparison_rows, measure_notes, measure_rows
from distdiff.study.methods import ORIGINAL, UNGUIDED
from distdiff.study.results import StudyResults
from distdiff.study.runs import MethodResult
from distdiff.wording import counted

VALIDATION = "validation"
FEATURES = {  # of the values of metrics, by the first of `measure.features`
    "judge": "in the features of a classifier trained on the dataset's whole training pool",
    "guide": "in the features that guide",
    "pixels": "in the pixels of the images",
}
MOST_TOLD = 12  # rows whose accuracies the description of a figure tells


def write_report(
    results: StudyResults, config: DictConfig, samples: Samples | None, path: Path, warnings: Sequence[str] = ()
) -> None:
    """Fills the template `report.html` with the results, and writes the page to `path`.

    All text is escaped. Without `samples`, the page shows none. `warnings` are those on the configuration, which the command
    printed at its beginning.
    """
    measures = fidelity_axes(results)
    write_page(
        "report.html",
        path,
        results=results,
        limits=[*limits(results), *(f"Warning: {words.removesuffix('.')}." for words in warnings)],
        rows_in_words=rows_in_words(results, config),
        accuracies=accuracy_rows(results),
        comparisons=comparison_rows(results),
        measures=measure_rows(results),
        notes=measure_notes(results),
        features=FEATURES.get((OmegaConf.select(config, "measure.features") or [""])[0], FEATURES["judge"]),
        figures=figures(results),
        fidelity_caption=None if measures is None else fidelity_caption(results, *measures),
        has_intervals=any(len(row.accuracies) > 1 for row in results.rows),
        dashed=dashed.method if (dashed := dashed_row(results)) is not None else None,
        left_out=len(results.rows) - len(shown_rows(results)),
        samples=samples,
        stages=[["stage", "time"], *([stage, _time(results, stage)] for stage in results.timing)],
        config=OmegaConf.to_yaml(config, resolve=True),
    )


def limits(results: StudyResults) -> list[str]:
    """What the study cannot show, one sentence each."""
    halves = [
        (comparison.simultaneous.high - comparison.simultaneous.low) / 2
        for comparison in results.comparisons.values()
        if comparison.simultaneous is not None
    ]
    lines = ["The findings hold for this dataset, this generator and these training recipes, and for no others."]
    if halves:
        least, most = f"{min(halves):.3f}", f"{max(halves):.3f}"
        between = least if least == most else f"{least} to {most}"
        lines.append(
            f"From {results.design}: intervals of differences reach {between} to either side of the mean. A difference "
            "smaller than that of its own interval cannot be told from chance."
        )
    elif results.comparisons:
        lines.append(f"From {results.design}: nothing is known of how much a repetition would differ.")
    if results.split == VALIDATION:
        lines.append("The accuracies are on validation images. For a figure to publish, use study.split=test.")
    if results.judge_accuracy is not None and results.judge_accuracy < LEAST_ACCURACY:
        lines.append(
            f"The judge labels only {results.judge_accuracy:.1%} of the {results.split} images rightly, so the measures of "
            "the expanded images mean little."
        )
    if results.leak_sentence():
        lines.append(f"Leaks: {results.leak_sentence()}.")
    return lines


def rows_in_words(results: StudyResults, config: DictConfig) -> str:
    """What the rows of the real images, of unguided ones and of the chosen guidance train on; empty without the first."""
    words = {ORIGINAL: "trains on the real images alone", UNGUIDED: "on these and on unguided images"}
    guidance = OmegaConf.select(config, "guidance") or {}
    if results.chosen == guidance.get("name") != UNGUIDED:
        strength = f" (guidance.rho={guidance.rho:g})" if "rho" in guidance else ""
        words[results.chosen] = f"on these and on images that it guides{strength}"
    if results.row(ORIGINAL) is None:
        return ""
    return f"Row {', '.join(f'{name!r} {what}' for name, what in words.items() if results.row(name) is not None)}."


def figures(results: StudyResults) -> dict[str, Markup]:
    """The figures of the page by name; a figure that the results have nothing for is not there."""
    found = {"accuracy": _accuracy(results)}
    if results.comparisons:
        found["differences"] = _differences(results)
    if results.factors:
        found["scaling"] = _scaling(results)
    if (measures := fidelity_axes(results)) is not None:
        found["fidelity"] = _fidelity(results, *measures)
    return found


def fidelity_axes(results: StudyResults) -> tuple[str, str] | None:
    """The measures of the figure of fidelity; None if it would show a single row and there is no other with images."""
    measures = axes_of(results)
    several = measures is not None and len(points(results, *measures)) + len(lacking(results, *measures)) > 1
    return measures if several else None


def _accuracy(results: StudyResults) -> Markup:
    told = _told(shown_rows(results))
    return inline(
        accuracy_figure(results), f"Accuracy of each row on {results.split} images", f"Mean accuracies: {told}."
    )


def _told(rows: list[MethodResult]) -> str:
    """The accuracies of the rows in words; of many rows, those of the most and the least accurate."""
    ordered = sorted(rows, key=lambda row: -row.mean("accuracy"))
    shown = ordered if len(rows) <= MOST_TOLD else [*ordered[: MOST_TOLD // 2], *ordered[-MOST_TOLD // 2 :]]
    words = ", ".join(f"{row.method} {row.mean('accuracy'):.3f}" for row in shown)
    return words if shown is ordered else f"the most and the least accurate of {counted(len(rows), 'row')} are {words}"


def _differences(results: StudyResults) -> Markup:
    shown = [comparison for of_baseline in groups(results).values() for comparison in of_baseline]
    settled = [comparison for comparison in shown if comparison.settled]
    words = f"{len(settled)} of {counted(len(shown), 'interval')} exclude zero"
    if settled:
        named = ", ".join(f"{each.method} minus {each.baseline} {each.mean:+.3f}" for each in settled[:MOST_TOLD])
        words += f": {named}" + (" and more" if len(settled) > MOST_TOLD else "")
    if not any(comparison.simultaneous for comparison in shown):
        single = all(comparison.difference.count == 1 for comparison in shown)
        words = f"Means without intervals, since {'there is a single data seed' if single else 'nothing varies'}"
    return inline(difference_figure(results), "Differences in accuracy, paired by data seed", f"{words}.")


def _scaling(results: StudyResults) -> Markup:
    curves = scaling_curves(results)
    words = f"Factors {', '.join(map(str, results.factors))}; curves of {', '.join(list(curves)[:MOST_CURVES])}."
    return inline(scaling_figure(results), "Accuracy against the number of copies of each source", words)


def _fidelity(results: StudyResults, fidelity: str, diversity: str) -> Markup:
    rows = points(results, fidelity, diversity)
    told = ", ".join(f"{row.method} {row.mean(fidelity):.3g} and {row.mean(diversity):.3g}" for row in rows[:MOST_TOLD])
    more = f" and {len(rows) - MOST_TOLD} more rows" if len(rows) > MOST_TOLD else ""
    names = [name.replace("_", " ") for name in (fidelity, diversity)]
    title = f"{names[0].capitalize()} and {names[1]} of each row, coloured by accuracy"
    only = f" Names stand beside {MOST_NAMES} of {len(rows)} dots." if len(rows) > MOST_NAMES else ""
    return inline(fidelity_figure(results, fidelity, diversity), title, f"{' and '.join(names)}: {told}{more}.{only}")


def _time(results: StudyResults, stage: str) -> str:
    return results.found.get(stage) or f"{results.timing[stage]:,.1f} s"
