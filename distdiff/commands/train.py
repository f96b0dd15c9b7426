"""Trains one classifier on real, or real and expanded, images and tests it: distdiff train train.expanded=<dir>."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.table import Table
from rich.text import Text

from distdiff.caching.stages import StageCache
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import Accuracies, ClassifierTrainer, few_shot_training_set
from distdiff.commands.enlarging import say_enlarged_images
from distdiff.console.progress import console
from distdiff.data.datasets import load_dataset
from distdiff.data.leaks import leak_counts, tell_leaks
from distdiff.data.readable import readable
from distdiff.data.splits.carving import check_measurable
from distdiff.ranks.world import world
from distdiff.store.filtering import RowFilter
from distdiff.store.reading import read_expanded
from distdiff.tracking.loggers import stage_logger, summarize, tracked

MOST_CLASSES = 20  # the most rows that the table has; results.json has all classes


def train(config: DictConfig, run_dir: Path) -> float:
    """Trains and tests a classifier, writes `results.json`, and returns the test accuracy."""
    splits = load_dataset(config.dataset)
    test, _ = readable(splits.test, "test")
    check_measurable(test, "test")
    data = few_shot_training_set(config, splits.train, config.seed)
    leaks = tell_leaks(replace(splits, train=data.parts[0], test=test))
    say_enlarged_images(config, data.parts[0])
    where = RowFilter.of("train.where", config.train.where)
    for directory in expanded_directories(config):
        images = read_expanded(directory, splits.train, where=where)
        data = data.with_part(images, images.identity)
    classifiers = ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(config.paths.cache_dir))
    with tracked(config, run_dir) as logger:
        classifier = classifiers.train_together(data, config.seed, "train", stage_logger(logger, "train"))
        tested = classifiers.test(classifier, test, data.fit)
        summarize(logger, {"accuracy": tested.accuracy, "num_train": len(data)})
        if world().leads:
            _conclude(config, tested, len(data), leak_counts(leaks), run_dir / "results.json")
    return tested.accuracy


def _conclude(config: DictConfig, tested: Accuracies, num_train: int, leaks: dict[str, int], path: Path) -> None:
    results = {
        "dataset": config.dataset.name,
        "accuracy": tested.accuracy,
        "num_train": num_train,
        "seed": config.seed,
        "leaks": leaks,
        "classes": [asdict(found) for found in tested.classes],
    }
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print()
    console.print(classes_table(tested))
    num_test = sum(found.num_test for found in tested.classes)
    console.print(f"accuracy {tested.accuracy:.4f} on {num_test:,} test images, trained on {num_train:,}")
    console.print(f"results  {path}")


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
