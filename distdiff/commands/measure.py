"""`experiments/measure.py`: an expanded dataset against the real data."""

import json
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig
from rich import box
from rich.table import Table

from distdiff.caching.stages import StageCache
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, training_set
from distdiff.console.progress import console
from distdiff.data.datasets import load_dataset
from distdiff.data.readable import checked
from distdiff.errors import UserError
from distdiff.metrics.fidelity import Fidelity, compare, judge_features
from distdiff.metrics.judge import train_judge
from distdiff.metrics.reference import Reference, reference
from distdiff.ranks.world import world
from distdiff.store.directory import read_expanded
from distdiff.store.filtering import RowFilter


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
    classifiers = ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(config.paths.cache_dir))
    judge = train_judge(classifiers, pool, config.measure.judge_steps)
    held_out, _ = checked(splits.test)
    size, fit, num_neighbours = config.classifier.input_size, config.dataset.fit, config.measure.num_neighbours

    def compared() -> tuple[Fidelity, Reference]:
        real, _ = judge_features(judge, pool.parts[0], size, fit)
        return (
            compare(images, real, judge, size, fit, num_neighbours),
            reference(real, held_out, judge, size, fit, num_neighbours),
        )

    fidelity, among_real = world().once(compared)
    expanded = {"expanded": str(config.measure.expanded), "where": where.words if where else None}
    results = {"dataset": config.dataset.name} | expanded | fidelity.as_dict() | {"reference": asdict(among_real)}
    if world().leads:
        path = run_dir / "results.json"
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        console.print()
        console.print(fidelity_table(fidelity, among_real), soft_wrap=False)
        console.print(f"results  {path}")
    return fidelity


def fidelity_table(fidelity: Fidelity, among_real: Reference) -> Table:
    """A row a measure: its value, which direction is better, and what real images give."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("measure", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("better", no_wrap=True)
    table.add_column("real images", justify="right", no_wrap=True)
    table.add_column("of these")
    halves = f"one random half of {among_real.num_half:,} against the other"
    told = {
        "frechet_distance": ("lower", f"{halves}; falls with the number of images"),
        "label_consistency": ("higher", f"the judge on {among_real.num_held_out:,} held-out images"),
        "coverage": ("higher", f"{halves}; rises with the number of images"),
    }
    for name, (better, words) in told.items():
        known = getattr(among_real, name)
        table.add_row(
            name,
            f"{getattr(fidelity, name):.4f}",
            better,
            "–" if known is None else f"{known:.4f}",
            "too few" if known is None else words,
        )
    return table
