"""`experiments/measure.py`: an expanded dataset against the real data."""

import json
from pathlib import Path

from omegaconf import DictConfig

from distdiff.caching.stages import StageCache
from distdiff.classification.training import ClassifierTrainer, training_set
from distdiff.console.progress import console
from distdiff.data.loading import load_dataset
from distdiff.errors import UserError
from distdiff.expansion.directory import read_expanded
from distdiff.expansion.filtering import RowFilter
from distdiff.metrics.fidelity import Fidelity, measure
from distdiff.metrics.judge import train_judge
from distdiff.ranks.world import world


def measure_expanded(config: DictConfig, run_dir: Path) -> Fidelity:
    """Measures `measure.expanded`, prints the figures and writes `results.json`."""
    if config.measure.expanded is None:
        raise UserError("measure.expanded has no value: give the directory of an expanded dataset")
    splits = load_dataset(config.dataset)
    where = RowFilter.of("measure.where", config.measure.where)
    images = read_expanded(config.measure.expanded, splits.train, where=where)
    if where and len(images) < 2:
        raise where.wrong("it leaves one image, and a distance of distributions takes two")
    pool = training_set(splits.train, config.dataset.fit)
    judge = train_judge(ClassifierTrainer(config, StageCache(config.paths.cache_dir)), pool, config.measure.judge_steps)
    real, size, fit = pool.parts[0], config.classifier.input_size, config.dataset.fit
    fidelity = world().once(lambda: measure(images, real, judge, size, fit, config.measure.num_neighbours))
    expanded = {"expanded": str(config.measure.expanded), "where": where.words if where else None}
    results = {"dataset": config.dataset.name} | expanded | fidelity.as_dict()
    if world().leads:
        (run_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for name, value in fidelity.as_dict().items():
        console.print(f"{name:<18} {value:.4f}")
    return fidelity
