"""Expands a dataset: distdiff expand dataset=digits guidance=direct expansion.factor=5."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.cli.job import is_swept
from distdiff.commands.enlarging import say_enlarged_images
from distdiff.console.progress import console
from distdiff.data.datasets import load_dataset
from distdiff.data.leaks import leak_counts, tell_leaks
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.generators import Generators
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.naming import run_columns, run_name
from distdiff.links import link
from distdiff.ranks.trainer import build_trainer
from distdiff.ranks.world import world
from distdiff.report.dashboard import show_expansion
from distdiff.store.columns import METADATA
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.energies import energy_table
from distdiff.store.tables import read_table
from distdiff.tracking.loggers import stage_logger, summarize, tracked
from distdiff.tuning.agreement import StrengthTuner
from distdiff.tuning.candidates import RECORD
from distdiff.tuning.choosing import figures
from distdiff.tuning.config import AGREEMENT
from distdiff.tuning.tuner import Tuner


def expand(config: DictConfig, run_dir: Path) -> Path:
    """Expands the training images and returns the expanded dataset's directory.

    Once the directory is complete, a link to it is made in the run's directory.
    """
    build_trainer(config.trainer)  # fails now if there is no such device
    cache = StageCache(config.paths.cache_dir)
    splits = load_dataset(config.dataset)
    data = few_shot_training_set(config, splits.train, config.seed)
    leaks = tell_leaks(replace(splits, train=data.parts[0]))
    say_enlarged_images(config, data.parts[0])
    tuning, generators = None, Generators(keeps_beginnings=config.expansion.tune or is_swept())
    if config.expansion.tune:
        tuner = StrengthTuner if config.tune.criterion == AGREEMENT else Tuner
        config, tuning = tuner(config, data, cache, generators).chosen()
        if world().leads:
            (run_dir / RECORD).write_text(json.dumps(tuning, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    job = Assembly(config, cache, generators).job(data, config.seed)
    job.claim()
    if tuning is not None:
        world().once(lambda: ExpandedDirectory(job.path).note(tuning=tuning))
    job.continue_run(run_dir)
    with tracked(config, run_dir, run_name(config), run_columns(config)) as logger:
        is_found = job.is_found_done()
        lacking = job.run(job.name, stage_logger(logger, "expand"), run_dir)
        if lacking:
            console.print(
                f"split {config.expansion.split} is done; {lacking:,} images of others are missing in {job.path}"
            )
            return job.path
        if world().leads:
            _conclude(config, job, leak_counts(leaks), tuning, run_dir, logger)
            show_expansion(logger, job.path, data.parts[0], data.fit, made=not is_found)
    return job.path


def _conclude(
    config: DictConfig,
    job: ExpansionJob,
    leaks: dict[str, int],
    tuning: dict[str, Any] | None,
    run_dir: Path,
    logger: Logger | None,
) -> None:
    path = job.path
    rows = read_table(path / METADATA).to_pylist()
    energies, rate = energy_table(rows), ExpandedDirectory(path).images_per_second()
    summarize(logger, energies | ({} if tuning is None else figures(tuning)))
    link(run_dir / "expanded", path, config.paths.output_dir)
    results = {"dataset": config.dataset.name, "method": job.name, "expanded": str(path)}
    results |= {"images": len(rows), "images_per_second": rate, "leaks": leaks} | energies
    results |= {} if tuning is None else {"tuning": tuning}
    (run_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    console.print(f"expanded {path}  ({len(rows):,} images{f', {rate:.1f} images/s' if rate else ''})")
