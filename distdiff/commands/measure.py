"""Compares an expanded dataset with the real data: distdiff measure measure.expanded=outputs/expanded/<dir>."""

import json
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from distdiff.caching.stages import StageCache
from distdiff.classification.config import PRETRAINED
from distdiff.classification.training import training_set
from distdiff.commands.enlarging import say_enlarged_images
from distdiff.console.progress import console
from distdiff.data.datasets import load_dataset
from distdiff.data.leaks import leak_counts, tell_leaks
from distdiff.data.readable import checked
from distdiff.encoders.config import LITE0
from distdiff.errors import UserError
from distdiff.metrics.judge import JudgeTrainer
from distdiff.metrics.measuring import Measurer, load_metrics
from distdiff.ranks.world import world
from distdiff.report.table import print_measures
from distdiff.store.filtering import RowFilter
from distdiff.store.reading import finished_directory, read_expanded

BESIDE = (
    "dataset",
    "expanded",
    "where",
    "judge_accuracy",
    "remarks",
    "reference",
    "leaks",
)  # results.json also has these keys


def measure(config: DictConfig, run_dir: Path) -> dict[str, float]:
    """Measures the expanded dataset `measure.expanded`, prints the values, writes `results.json`, and returns the values."""
    if config.measure.expanded is None:
        raise UserError("measure.expanded has no value: give the directory of an expanded dataset")
    metrics = load_metrics(config)
    for name in metrics:
        if name in BESIDE:
            raise UserError(
                f"measure.metrics={name} is not allowed: results.json uses this name for something else; rename it"
            )
    splits = load_dataset(config.dataset)
    where = RowFilter.of("measure.where", config.measure.where)
    images = read_expanded(config.measure.expanded, splits.train, where=where)
    if where and len(images) < 2:
        raise where.wrong("it leaves one image, and a distance between distributions needs two")
    refuse_features_that_guided(config)
    pool = training_set(splits.train, config.dataset.fit)
    leaks = tell_leaks(replace(splits, train=pool.parts[0]))
    say_enlarged_images(config, pool.parts[0])
    judge = JudgeTrainer(config, StageCache(config.paths.cache_dir)).train(pool)
    held_out, _ = checked(splits.test)
    measurer = Measurer(metrics, judge, pool.parts[0], held_out)
    measured, reference, judge_accuracy = world().once(
        lambda: (measurer.measured(images), measurer.reference(held_out), measurer.judge_accuracy(held_out))
    )
    if world().leads:
        results = {
            "dataset": config.dataset.name,
            "expanded": str(config.measure.expanded),
            "where": where.words if where else None,
            "leaks": leak_counts(leaks),
            "judge_accuracy": judge_accuracy,
            **measured.values,
            "remarks": measured.remarks,
            "reference": reference.as_dict(),
        }
        path = run_dir / "results.json"
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        print_measures(measured, metrics, reference, judge_accuracy)
        console.print(f"results  {path}")
    return measured.values


def refuse_features_that_guided(config: DictConfig) -> None:
    """Raises `UserError` if the judge would look at the pretrained features that guided the images."""
    judge = config.measure.judge_classifier
    if judge != LITE0 or not config.options.classifier[judge][PRETRAINED]:
        return
    from distdiff.encoders.efficientnet_lite0 import lite0_identity  # imported here, since few commands need it

    if finished_directory(config.measure.expanded).manifest()["ingredients"].get("encoder") == lite0_identity():
        raise UserError(
            f"measure.judge_classifier={judge} is not allowed: its features guided these images (encoder={LITE0}), and "
            "a judge needs others, such as measure.judge_classifier=small_resnet"
        )
