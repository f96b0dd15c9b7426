"""What a W&B dashboard shows of a study or an expansion when it is done: final values, tables, charts, and lineage."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from PIL import Image

from distdiff.data.images import LabelledImages
from distdiff.report.samples import Samples
from distdiff.store.columns import METADATA
from distdiff.store.lineage import stored_dataset
from distdiff.store.reading import read_expanded
from distdiff.store.tables import read_table
from distdiff.study.measures import ACCURACY
from distdiff.study.results import StudyResults
from distdiff.study.runs import MethodResult
from distdiff.study.statistics import mean_interval
from distdiff.tracking.lineage import log_made, log_used
from distdiff.tracking.loggers import dashboard_of, summarize

SIDE = 96  # the most pixels of a side of a picture in a table
MOST_CLASSES = 10  # of which an expansion's table has an image
# The curves that are also drawn together, one line for each row of a study: the chart, its source, its title and its axis.
BY_ROW = (
    ("Expansion/energy_by_row", "Expansion/energy_after", "energy of the made images, by row", "images"),
    ("Training/loss_by_row", "Training/loss", "training loss, by row", "step"),
)


def show_study(logger: Logger | None, results: StudyResults, samples: Samples) -> None:
    """Logs the results of a study. Only W&B has tables and charts; other loggers get the means."""
    dashboard = dashboard_of(logger)
    if dashboard is None:
        summarize(logger, results.summary())
        return
    dashboard.summarize(final_values(results))
    dashboard.show_bars(ACCURACY, f"mean accuracy on {results.split} images", accuracies(results))
    dashboard.show_table("results_table", result_rows(results))
    dashboard.show_table("samples_table", sample_rows(samples))
    for chart, source, title, axis in BY_ROW:
        curves = dashboard.counts.curves.get(source, {})
        dashboard.show_lines(chart, f"{title} (first draw)", axis, {row: each.points for row, each in curves.items()})
    known = dict.fromkeys(run.expanded for row in results.rows for run in row.runs if run.expanded is not None)
    log_made(logger, *(stored_dataset(path) for path in known if path in results.made))
    log_used(logger, *(stored_dataset(path) for path in known if path not in results.made))


def show_expansion(logger: Logger | None, path: Path, sources: LabelledImages, fit: str, made: bool) -> None:
    """Logs samples of a finished expanded dataset, and the dataset as what the run has `made`, or else used."""
    if (dashboard := dashboard_of(logger)) is not None:
        dashboard.show_table("samples_table", first_images(path, sources, fit))
        (log_made if made else log_used)(logger, stored_dataset(path))


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
    names = {"accuracy": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}
    found = [(row.method, _values_of(row, (ACCURACY,))) for row in results.rows]
    return [{"method": method, **{name: values.get(key) for name, key in names.items()}} for method, values in found]


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


def sample_rows(samples: Samples) -> list[dict[str, Any]]:
    """A row for each sample: its source, its energies, and what the judge sees in it (None if no judge has looked)."""
    return [
        {
            "method": title,
            "class": name,
            "source": _small(source),
            "generated": _small(sample.image),
            "energy_before": sample.entry.get("energy_before"),
            "energy": sample.entry.get("energy_after"),
            "predicted": sample.predicted,
            "label_consistent": None if sample.predicted is None else sample.predicted == sample.class_name,
            "nearest_real": None if sample.nearest is None else _small(sample.nearest),
            "nearest_distance": sample.distance,
        }
        for title, line in samples.lines
        for name, source, sample in zip(samples.class_names, samples.sources, line, strict=True)
        if sample is not None
    ]


def first_images(path: Path, sources: LabelledImages, fit: str) -> list[dict[str, Any]]:
    """The first image of each of the first classes in a finished expanded dataset, with its source and its energies."""
    images = read_expanded(path, sources)
    _, firsts = np.unique(images.labels, return_index=True)
    chosen = images.select(firsts[:MOST_CLASSES])
    names = set(chosen.keys)
    rows = {row["file_name"]: row for row in read_table(path / METADATA).to_pylist() if row["file_name"] in names}
    positions = {name: position for position, name in enumerate(sources.names)}
    found = []
    for place, key in enumerate(chosen.keys):
        source = next((positions[name] for name in chosen.sources[place] if name in positions), None)
        found.append(
            {
                "class": sources.class_names[chosen.labels[place]],
                "source": None if source is None else sources.square(source, SIDE, fit),
                "generated": chosen.square(place, SIDE, fit),
                "energy_before": rows[key].get("energy_before"),
                "energy": rows[key].get("energy_after"),
            }
        )
    return found


def _small(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    return small
