"""Compares an expanded dataset with the real data: distdiff measure measure.expanded=outputs/expanded/<dir>."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from distdiff.caching.stages import StageCache
from distdiff.classification.config import PRETRAINED, WEIGHTS_PACKAGE
from distdiff.classification.training import training_set
from distdiff.commands.enlarging import say_enlarged_images
from distdiff.console.progress import console
from distdiff.data.datasets import load_dataset
from distdiff.data.leaks import leak_counts, tell_leaks
from distdiff.data.readable import checked
from distdiff.encoders.base import Encoder
from distdiff.encoders.config import LITE0
from distdiff.encoders.guide import guide_in_cache
from distdiff.errors import UserError
from distdiff.expansion.naming import run_name
from distdiff.metrics.config import GUIDE
from distdiff.metrics.judge import JudgeTrainer
from distdiff.metrics.measuring import Measurer, load_metrics
from distdiff.metrics.views import GuideView
from distdiff.ranks.world import world
from distdiff.report.table import print_measures
from distdiff.store.directory import encoder_of
from distdiff.store.filtering import RowFilter
from distdiff.store.lineage import stored_dataset
from distdiff.store.reading import finished_directory, read_expanded
from distdiff.study.measures import BETTER
from distdiff.tracking.lineage import log_used
from distdiff.tracking.loggers import summarize, tracked

BESIDE = (
    "dataset",
    "expanded",
    "where",
    "judge_accuracy",
    BETTER,
    "remarks",
    "measures",
    "reference",
    "leaks",
)  # results.json also has these keys


def measure(config: DictConfig, run_dir: Path) -> dict[str, float | None]:
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
    cache, features = StageCache(config.paths.cache_dir), config.measure.features
    guide = guide_of(config, cache) if GUIDE in features else None
    judge = JudgeTrainer(config, cache).train(pool)
    held_out, _ = checked(splits.test)
    measurer = Measurer(metrics, judge, pool.parts[0], held_out, features, config.measure.bootstrap)
    measurer.guided_by(guide and GuideView(guide, config.dataset.fit, judge.device))
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
            BETTER: {name: metric.higher_is_better for name, metric in metrics.items()},
            **measured.values,
            "remarks": measured.remarks,
            "measures": measured.as_dict(),
            "reference": reference.as_dict(),
        }
        path = run_dir / "results.json"
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        print_measures(measured, metrics, reference, judge_accuracy)
        with tracked(config, run_dir, run_name(config)) as logger:
            known = {"judge_accuracy": judge_accuracy, **measured.values}
            summarize(logger, {name: value for name, value in known.items() if value is not None})
            log_used(logger, stored_dataset(config.measure.expanded))
        console.print(f"results  {path}")
    return measured.values


def refuse_features_that_guided(config: DictConfig) -> None:
    """Raises `UserError` if the judge would look at the pretrained features that guided the images."""
    judge = config.measure.judge_classifier
    if judge != LITE0 or not config.options.classifier[judge][PRETRAINED]:
        return
    from distdiff.encoders.efficientnet_lite0 import lite0_identity  # imported here, since few commands need it

    if _guide_identity(config) == lite0_identity():
        raise UserError(
            f"measure.judge_classifier={judge} is not allowed: its features guided these images (encoder={LITE0}), and "
            "a judge needs others, such as measure.judge_classifier=small_resnet"
        )


def guide_of(config: DictConfig, cache: StageCache) -> Encoder:
    """The encoder that guided the images, which their manifest names: a guide in the cache, or EfficientNet-Lite0.

    Raises `UserError` if no encoder guided them, or if it is another one.
    """
    refused, identity = f"measure.features={list(config.measure.features)} is not allowed", _guide_identity(config)
    if identity is None:
        raise UserError(f"{refused}: no encoder guided the images of {config.measure.expanded}; leave out guide")
    if (guide := guide_in_cache(identity, cache)) is not None:
        return guide
    if find_spec(WEIGHTS_PACKAGE):
        from distdiff.encoders.efficientnet_lite0 import Lite0Encoder, lite0_identity

        if identity == lite0_identity():
            return Lite0Encoder()
    raise UserError(
        f"{refused}: the encoder of {config.measure.expanded} is not in paths.cache_dir={cache.root}. Only guides that were "
        "trained there and EfficientNet-Lite0 can measure here, not clip, hf and generator; leave out guide, or let a study "
        "measure (run.py), which has every encoder"
    )


def _guide_identity(config: DictConfig) -> str | None:
    """The fingerprint of the encoder whose features guided the images or chose among them; None without one."""
    return encoder_of(finished_directory(config.measure.expanded).manifest()["ingredients"])
