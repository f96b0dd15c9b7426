"""Trains one classifier on real, or real and expanded, images and tests it: distdiff train train.expanded=<dir>."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.table import Table
from rich.text import Text

from distdiff.caching.stages import StageCache
from distdiff.classification.callback_keys import CHECKPOINT
from distdiff.classification.config import BEST_ON_TEST
from distdiff.classification.recipe import Recipe
from distdiff.classification.running import Running
from distdiff.classification.testing import Accuracies
from distdiff.classification.training import ClassifierTrainer, few_shot_training_set
from distdiff.commands.enlarging import say_enlarged_images
from distdiff.console.progress import console
from distdiff.data.datasets import load_dataset
from distdiff.data.images import LabelledImages
from distdiff.data.leaks import leak_counts, tell_leaks
from distdiff.data.readable import readable
from distdiff.data.splits.carving import check_measurable
from distdiff.errors import UserError
from distdiff.expansion.naming import run_name
from distdiff.ranks.world import world
from distdiff.store.filtering import RowFilter
from distdiff.store.lineage import stored_dataset
from distdiff.store.reading import read_expanded
from distdiff.tracking.lineage import MODEL, Stored, log_made, log_used
from distdiff.tracking.loggers import stage_logger, summarize, tracked
from distdiff.wording import some

OPTIMISTIC = " (the best of all checks on these very images, train.selection=best_on_test: too high an estimate)"
MOST_CLASSES = 20  # the most rows that the table has; results.json has all classes


def train(config: DictConfig, run_dir: Path) -> float:
    """Trains and tests a classifier, writes `results.json`, and returns the accuracy on the images of `train.split`."""
    splits, split = load_dataset(config.dataset), config.train.split
    test, _ = readable(getattr(splits, split), split)
    check_measurable(test, split, config.dataset.num_folds)
    data = few_shot_training_set(config, splits.train, config.seed)
    leaks = tell_leaks(replace(splits, train=data.parts[0], **{split: test}))
    say_enlarged_images(config, data.parts[0])
    where = RowFilter.of("train.where", config.train.where)
    expanded = [read_expanded(directory, splits.train, where=where) for directory in expanded_directories(config)]
    check_classes(expanded, config.train.expanded, where)
    world().once(lambda: say_other_sources(expanded, data.parts[0], config))
    for images in expanded:
        data = data.with_part(images, images.identity)
    running = Running.of(config, splits, run_dir)
    classifiers = ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(config.paths.cache_dir), running)
    with tracked(config, run_dir, run_name(config)) as logger:
        classifier = classifiers.train_together(data, config.seed, "train", stage_logger(logger, "train"))
        if not classifiers.cache.made and (asked := running.asks_for_training()) and world().leads:
            console.print(f"nothing was trained, and {asked} has no effect: the classifier was found in the cache")
        tested = classifiers.test(classifier, test, data.fit)
        summarize(logger, {"accuracy": tested.accuracy, "macro_f1": tested.macro_f1, "num_train": len(data)})
        if world().leads:
            log_used(logger, *map(stored_dataset, expanded_directories(config)))
            log_models = log_made if classifiers.cache.made else log_used  # weights from the cache are an earlier run's
            log_models(logger, *_models(config, classifiers.weights(data, config.seed), running, tested.accuracy))
            _conclude(config, tested, len(data), leak_counts(leaks), run_dir / "results.json")
    return tested.accuracy


def _models(config: DictConfig, weights: Path, running: Running, accuracy: float) -> Iterator[Stored]:
    """The trained weights, and the checkpoints of `callbacks=checkpoint`."""
    facts = {"accuracy": accuracy, "split": config.train.split, "seed": config.seed}
    yield Stored(MODEL, f"{run_name(config)}-{weights.parent.name[:8]}", weights.parent, (weights,), facts)
    if CHECKPOINT in running.callbacks:
        folder = Path(running.callbacks[CHECKPOINT]["dirpath"] or running.folder / "checkpoints")
        if files := sorted(folder.glob("*.ckpt")):
            yield Stored(MODEL, f"{run_name(config)}-checkpoints", folder, tuple(files), facts)


def check_classes(expanded: Sequence[LabelledImages], typed: Any, where: RowFilter | None) -> None:
    """Raises `UserError` if expanded datasets (`train.expanded=<typed>`) together have no image of some class.

    If they have none because of the condition `where`, a line says so instead.
    """
    if not expanded:
        return
    names = expanded[0].class_names
    counts = sum(np.bincount(images.labels, minlength=len(names)) for images in expanded)
    lacking = [name for name, count in zip(names, counts, strict=True) if not count]
    if not lacking:
        return
    words = f"no image of {len(lacking)} of {len(names)} classes ({some(lacking)})"
    if where is None:
        raise UserError(
            f"train.expanded={typed} is not allowed: it has {words}; expand these classes too, and give both "
            "directories, [a, b]"
        )
    world().once(lambda: console.print(f"train.where leaves {words} of train.expanded, which get real images alone"))


def say_other_sources(expanded: Sequence[LabelledImages], real: LabelledImages, config: DictConfig) -> None:
    """Says how many images of expanded datasets were made from real images that are not among those trained on."""
    drawn = {*real.names}
    sources = [of_image for images in expanded for of_image in images.sources or ()]
    if others := sum(not drawn.issuperset(of_image) for of_image in sources):
        console.print(
            f"warning: {others:,} of {len(sources):,} expanded images were made from real images that are not among the "
            f"{len(real):,} trained on (dataset.per_class={config.dataset.per_class}, seed={config.seed})"
        )


def _conclude(config: DictConfig, tested: Accuracies, num_train: int, leaks: dict[str, int], path: Path) -> None:
    worst = tested.worst
    results = {
        "dataset": config.dataset.name,
        "split": config.train.split,
        "selection": config.train.selection,
        "accuracy": tested.accuracy,
        "macro_f1": tested.macro_f1,
        "worst_class": asdict(worst),
        "calibration_error": tested.calibration_error,
        "num_train": num_train,
        "seed": config.seed,
        "leaks": leaks,
        "classes": [asdict(found) for found in tested.classes],
        "confusion_matrix": tested.confusion,
        "correct": tested.correct,
    }
    path.write_text(_as_json(results), encoding="utf-8")
    console.print()
    console.print(classes_table(tested))
    num_test, split = len(tested.correct), config.train.split
    chosen = OPTIMISTIC if config.train.selection == BEST_ON_TEST else ""
    console.print(
        f"accuracy {tested.accuracy:.4f} on {num_test:,} {split} images{chosen}, trained on {num_train:,}; "
        f"macro F1 {tested.macro_f1:.4f}, calibration error {tested.calibration_error:.4f}"
    )
    console.print(f"results  {path}")


def _as_json(results: dict[str, Any]) -> str:
    """`results` with a line for each value, and for each element of a list of mappings or of rows of a matrix."""

    def text(value: Any) -> str:
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], (dict, tuple)):
            return "[\n    " + ",\n    ".join(text(item) for item in value) + "\n  ]"
        return json.dumps(value, ensure_ascii=False)

    lines = [f"  {json.dumps(name)}: {text(value)}" for name, value in results.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def classes_table(tested: Accuracies) -> Table:
    """A table of the classes with the lowest accuracy. Classes of equal accuracy stay in their order."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("class, worst first")
    table.add_column("accuracy", justify="right")
    table.add_column("test images", justify="right")
    classes = sorted(tested.classes, key=lambda found: found.accuracy)
    for found in classes[:MOST_CLASSES]:
        table.add_row(Text(found.class_name), f"{found.accuracy:.4f}", f"{found.num_test:,}")
    if len(classes) > MOST_CLASSES:
        table.add_row(Text(f"… {len(classes) - MOST_CLASSES:,} more, in results.json"))
    return table


def expanded_directories(config: DictConfig) -> list[Path]:
    """The directories in `train.expanded` as a list, which may be empty."""
    value = config.train.expanded
    if value is None:
        return []
    return [Path(str(item)).expanduser() for item in (value if OmegaConf.is_list(value) else [value])]
