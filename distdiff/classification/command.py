"""`experiments/train.py`: one classifier on original, or on original and expanded images."""

import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from distdiff.caching.stages import StageCache
from distdiff.classification.training import ClassifierTrainer, few_shot_training_set
from distdiff.console.progress import console
from distdiff.data.checking import readable
from distdiff.data.loading import load_dataset
from distdiff.data.splits import check_measurable
from distdiff.expansion.directory import read_expanded
from distdiff.expansion.filtering import RowFilter
from distdiff.ranks.world import world
from distdiff.tracking.loggers import stage_logger, summarize, tracked


def train(config: DictConfig, run_dir: Path) -> float:
    """Trains, tests and writes `results.json`; returns the test accuracy."""
    splits = load_dataset(config.dataset)
    test, _ = readable(splits.test, "test")
    check_measurable(test, "test")
    data = few_shot_training_set(config, splits.train, config.seed)
    where = RowFilter.of("train.where", config.train.where)
    for directory in expanded_directories(config):
        images = read_expanded(directory, splits.train, where=where)
        data = data.with_part(images, images.identity)
    classifiers = ClassifierTrainer(config, StageCache(config.paths.cache_dir))
    with tracked(config, run_dir) as logger:
        classifier = classifiers.train_together(data, config.seed, "train", stage_logger(logger, "train"))
        accuracy = classifiers.accuracy(classifier, test)
        summarize(logger, {"accuracy": accuracy, "num_train": len(data)})
    results = {"dataset": config.dataset.name, "accuracy": accuracy, "num_train": len(data), "seed": config.seed}
    if world().leads:
        (run_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    console.print(f"accuracy {accuracy:.4f} on {len(test):,} test images, trained on {len(data):,}")
    return accuracy


def expanded_directories(config: DictConfig) -> list[Path]:
    """`train.expanded` as a list: nothing, one directory, or several."""
    value = config.train.expanded
    if value is None:
        return []
    return [Path(str(item)).expanduser() for item in (value if OmegaConf.is_list(value) else [value])]
