"""What a W&B dashboard shows of a study or an expansion when it is done: final values, tables, charts, and lineage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from PIL import Image

from distdiff.data.images import LabelledImages
from distdiff.metrics.measuring import Measurer
from distdiff.store.columns import METADATA
from distdiff.store.lineage import stored_dataset
from distdiff.store.reading import finished_directory, read_expanded
from distdiff.store.tables import read_table
from distdiff.study.results import StudyResults
from distdiff.study.runs import MethodResult
from distdiff.study.statistics import mean_interval
from distdiff.tracking.lineage import log_made
from distdiff.tracking.loggers import dashboard_of, summarize

SIDE = 96  # pixels of a picture in a table
MOST_CLASSES, MOST_SAMPLES = 10, 100  # classes of a row, and rows of the table of samples
ACCURACY = "accuracy"
# The curves that are also drawn together, one line for each row of a study: the chart, its source, its title and its axis.
BY_ROW = (
    ("Expansion/energy_by_row", "Expansion/energy_after", "energy of the made images, by row", "images"),
    ("Training/loss_by_row", "Training/loss", "training loss, by row", "step"),
)


def show_study(logger: Logger | None, results: StudyResults, measurer: Measurer | None, fit: str) -> None:
    """Logs the results of a study. Only W&B has tables and charts; other loggers get the means."""
    dashboard = dashboard_of(logger)
    if dashboard is None:
        summarize(logger, results.summary())
        return
    dashboard.summarize(final_values(results))
    dashboard.show_bars(ACCURACY, f"mean accuracy on {results.split} images", accuracies(results))
    dashboard.show_table("results_table", result_rows(results))
    for chart, source, title, axis in BY_ROW:
        curves = dashboard.counts.curves.get(source, {})
        dashboard.show_lines(chart, f"{title} (first draw)", axis, {row: each.points for row, each in curves.items()})
    made = {run.expanded: row.method for row in results.rows for run in row.runs if run.expanded is not None}
    first = {row.runs[0].expanded: row.method for row in reversed(results.rows) if row.runs[0].expanded is not None}
    of_row = max(1, MOST_SAMPLES // max(1, len(first)))
    samples = [
        sample for path in reversed(first) for sample in sample_rows(path, first[path], measurer, fit, limit=of_row)
    ]
    dashboard.show_table("samples_table", samples)
    log_made(logger, *(stored_dataset(path) for path in made))


def show_expansion(logger: Logger | None, path: Path, row: str, sources: LabelledImages, fit: str) -> None:
    """Logs samples of a finished expanded dataset, and the dataset as what the run has made."""
    if (dashboard := dashboard_of(logger)) is not None:
        dashboard.show_table("samples_table", sample_rows(path, row, None, fit, sources))
        log_made(logger, stored_dataset(path))


def final_values(results: StudyResults) -> dict[str, float]:
    """Means over data seeds with `_std`, `_low` and `_high` (95 % Student t interval), by `<row>/<figure>`.

    Those of the row that the job's keys choose also stand under the figures' own names, so that sweeps can compare them.
    Of a single data seed, only the mean is known.
    """
    found: dict[str, float] = {}
    for row in results.rows:
        of_row = _values_of(row, (ACCURACY, *results.scores, *results.measures))
        found |= {f"{row.method}/{name}": value for name, value in of_row.items()}
        if row.method == results.chosen:
            found |= of_row
    chosen = results.row(results.chosen)
    for baseline in results.baselines if chosen is not None else ():
        if (comparison := results.against(chosen, baseline)) is not None:
            name, interval = f"difference_to_{comparison.baseline}", comparison.simultaneous
            found[name] = comparison.mean
            if interval is not None:
                found |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return found | ({} if results.judge_accuracy is None else {"judge_accuracy": results.judge_accuracy})


def _values_of(row: MethodResult, names: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in names:
        values = row.seed_means(name)
        if values:
            found[name] = fmean(values)
        if len(values) > 1:
            interval = mean_interval(values)
            found |= {f"{name}_std": stdev(values), f"{name}_low": interval.low, f"{name}_high": interval.high}
    if row.validation_accuracy is not None:
        found["validation_accuracy"] = row.validation_accuracy
    return found


def accuracies(results: StudyResults) -> list[dict[str, Any]]:
    """The mean accuracy of each row and its interval, for a chart."""
    values = final_values(results)
    names = {"accuracy": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}
    return [
        {"method": row.method, **{name: values.get(f"{row.method}/{key}") for name, key in names.items()}}
        for row in results.rows
    ]


def result_rows(results: StudyResults) -> list[dict[str, Any]]:
    """A row for each method, data seed and training seed."""
    further = [ACCURACY, *results.scores, *results.measures]
    return [
        {"method": row.method}
        | ({"factor": row.factor} if results.factors else {})
        | {"seed": run.seed, "training_seed": run.training_seed}
        | {name: run.figures().get(name) for name in further}
        | {"validation_accuracy": run.validation_accuracy, "steps": run.steps, "num_train": run.num_train}
        | {"classifier": run.classifier, "augmentation": run.augmentation, "expanded": run.expanded}
        for row in results.rows
        for run in row.runs
    ]


def sample_rows(
    path: Path | str,
    row: str,
    measurer: Measurer | None,
    fit: str,
    sources: LabelledImages | None = None,
    limit: int = MOST_SAMPLES,
) -> list[dict[str, Any]]:
    """The first image of each class in a finished expanded dataset, with its source and its energies.

    With a `measurer`, also what its judge sees: the predicted class, and the nearest real image. `sources` are the real
    images; those of the measurer if there is one.
    """
    real = sources if measurer is None else measurer.images
    images = read_expanded(path, real)
    labels, firsts = np.unique(images.labels, return_index=True)
    firsts = firsts[: min(MOST_CLASSES, limit, len(labels))]
    chosen = images.select(firsts)
    table = read_table(finished_directory(path).path / METADATA).to_pylist()
    rows = {entry["file_name"]: entry for entry in table if entry["file_name"] in set(chosen.keys)}
    positions = {f"{real.class_names[real.labels[p]]}/{real.keys[p]}": p for p in range(len(real))}
    # The features of all real images may take minutes, so they are only used if a measure needed them.
    looks = measurer.look(chosen) if measurer is not None and "real" in vars(measurer) else None
    found = []
    for place, key in enumerate(chosen.keys):
        entry, made_from = rows[key], chosen.sources[place] if chosen.sources else ()
        source = positions.get(made_from[0]) if made_from else None
        found.append(
            {
                "method": row,
                "class": real.class_names[chosen.labels[place]],
                "source": None if source is None else _picture(real, source, fit),
                "generated": _picture(chosen, place, fit),
                "energy_before": entry.get("energy_before"),
                "energy": entry.get("energy_after"),
                **({} if looks is None else _seen(looks, place, chosen, real, fit)),
            }
        )
    return found


def _seen(looks: Any, place: int, chosen: LabelledImages, real: LabelledImages, fit: str) -> Mapping[str, Any]:
    predicted = int(looks.predicted[place])
    return {
        "predicted": real.class_names[predicted],
        "label_consistent": predicted == int(chosen.labels[place]),
        "nearest_real": _picture(real, int(looks.nearest[place]), fit),
        "nearest_distance": float(looks.distance[place]),
    }


def _picture(images: LabelledImages, position: int, fit: str) -> Image.Image:
    return images.square(position, SIDE, fit)
