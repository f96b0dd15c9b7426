"""`tune.criterion=accuracy`: chooses guidance, selection, strength, ρ and factor by accuracy on real images set aside."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint
from distdiff.caching.stages import StageCache
from distdiff.classification.training import ClassifierTrainer, TrainingSet
from distdiff.config.command import OPTIONS, ROWS
from distdiff.console.progress import console
from distdiff.data.images import LabelledImages
from distdiff.encoders.guide import guide_recipe
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.generators import Generators
from distdiff.expansion.naming import row_name
from distdiff.ranks.world import world
from distdiff.seeds import training_seed
from distdiff.selection.config import ALL
from distdiff.store.options import StorageOptions
from distdiff.study.methods import UNGUIDED
from distdiff.tuning.candidates import (
    IMAGES,
    apart_from_fold,
    chosen_config,
    expanded_into,
    number_of_folds,
    refuse_other_files,
)
from distdiff.tuning.choosing import Choice, Unit, as_record, choose, num_evaluations
from distdiff.wording import counted

REVISION = 1  # increase when a change in this module changes accuracies
STAGE, ACCURACY = "tuned", "accuracy.json"
FEW = 100  # real images; with fewer, a line says by how much an accuracy on them is off by chance
HALF_WIDTH = 1.96 * 0.5  # of the 95 % interval of an accuracy of 0.5 on one image, by the normal approximation


class Tuner:
    """Compares the candidates in `config.options.rows` by cross-validation on the real images `data`.

    A unit is a fold in a repeat, each of which draws other folds. For a unit, a candidate expands the images outside the fold,
    a classifier is trained on these and the new ones, and its accuracy in the fold counts. Accuracies are kept in the
    cache; the images are removed. Raises `UserError` if a class has a single image.
    """

    def __init__(self, config: DictConfig, data: TrainingSet, cache: StageCache, generators: Generators) -> None:
        self.config, self.data, self.cache = config, data, cache
        refuse_other_files(config)
        self.num_folds = number_of_folds(config, data.parts[0])
        self.candidates: dict[str, DictConfig] = dict(config[OPTIONS][ROWS].items())
        self.labels = labels_of(self.candidates)
        self.assemblies = {name: Assembly(each, cache, generators) for name, each in self.candidates.items()}
        self.trainer = ClassifierTrainer(guide_recipe(config.tune.recipe, config[OPTIONS]), config.trainer, cache)
        self._parted: dict[Unit, tuple[TrainingSet, LabelledImages]] = {}
        self._count = 0

    def chosen(self) -> tuple[DictConfig, dict[str, Any]]:
        """The configuration of the chosen candidate, and a record of the choice, which is printed too."""
        keys = self.config.tune
        rounds = [[(repeat, fold) for fold in range(self.num_folds)] for repeat in range(keys.repeats)]
        number = num_evaluations(len(self.candidates), [len(units) for units in rounds], keys.keep)
        console.print(
            f"tuning: {counted(len(self.candidates), 'candidate')}, {self.num_folds} folds, {counted(keys.repeats, 'round')}: "
            f"about {counted(number, 'training')} of {keys.recipe.steps:,} steps, each after an expansion"
        )
        if (tested := len(self.data)) < FEW:
            console.print(
                f"warning: {counted(tested, 'real image')} are few to choose from: by chance alone, an accuracy on them is off "
                f"by up to {HALF_WIDTH / tested**0.5:.2f} (95 %), more than most settings differ"
            )
        choice = choose(list(self.candidates), self._unguided(), rounds, keys.keep, self._accuracy)
        record = as_record(choice, self.labels)
        _say(choice, record)
        return chosen_config(self.candidates[choice.chosen], self.config), record

    def _unguided(self) -> list[str]:
        """The candidates with which the others are compared: unguided and, unless a selection was typed, without selection."""
        unguided = {name: each for name, each in self.candidates.items() if each.guidance.name == UNGUIDED}
        plain = [name for name, each in unguided.items() if each.selection.name == ALL]
        return plain or list(unguided)

    def _accuracy(self, name: str, unit: Unit) -> float:
        """What a classifier that learnt from a candidate's images reaches in a unit's fold."""
        self._count += 1
        rest, fold = self._parts(unit)
        repeat, config = unit[0], self.candidates[name]
        seed = training_seed(self.config.seed, repeat)
        ingredients = {
            "revision": REVISION,
            "expansion": self.assemblies[name].ingredients(rest, self.config.seed),
            "factor": config.expansion.factor,
            "encoding": asdict(StorageOptions.of(config).encoding),
            "training": self.trainer.ingredients(rest, seed),
            "fold": fold.identity,
        }
        title = f"tune {self._count}: {self.labels[name]}, fold {unit[1] + 1}"

        scratch = self.cache.root / IMAGES / fingerprint(ingredients)

        def build(folder: Path | None) -> None:
            accuracy = self._measured(name, rest, fold, seed, scratch, title)
            if folder is not None:
                (folder / ACCURACY).write_text(json.dumps(accuracy), encoding="utf-8")

        folder = self.cache.get_together(STAGE, ingredients, build)
        world().once(lambda: shutil.rmtree(scratch, ignore_errors=True))
        return world().once(lambda: json.loads((folder / ACCURACY).read_text(encoding="utf-8")))

    def _measured(
        self, name: str, rest: TrainingSet, fold: LabelledImages, seed: int, directory: Path, title: str
    ) -> float:
        """Expands `rest` into `directory`, trains on both, and tests on `fold`."""
        generators = self.assemblies[name].generators
        images = expanded_into(directory, self.candidates[name], rest, self.config.seed, title, self.cache, generators)
        # As the guide, not on all ranks together: the choice, and so the images, must not depend on how many there are.
        classifier = self.trainer.train(rest.with_part(images, images.identity), seed, f"{title}: train")
        return self.trainer.accuracy(classifier, fold, rest.fit)

    def _parts(self, unit: Unit) -> tuple[TrainingSet, LabelledImages]:
        """The images outside a unit's fold, and those in it."""
        if unit not in self._parted:
            repeat, fold = unit
            seed = training_seed(self.config.seed, repeat)
            self._parted[unit] = apart_from_fold(self.data, self.num_folds, fold, seed)
        return self._parted[unit]


def labels_of(candidates: Mapping[str, DictConfig]) -> dict[str, str]:
    """The candidates in words: row, strength, ρ, and scale and factor if candidates differ in them."""
    scales = {each.generator.cfg_scale for each in candidates.values()}
    factors = {each.expansion.factor for each in candidates.values()}
    labels = {}
    for name, each in candidates.items():
        words = [row_name(each), f"strength {each.expansion.strength}"]
        words += [f"ρ {each.guidance.rho:g}"] if "rho" in each.guidance else []
        words += [f"scale {each.generator.cfg_scale:g}"] if len(scales) > 1 else []
        words += [f"factor {each.expansion.factor}"] if len(factors) > 1 else []
        labels[name] = ", ".join(words)
    return labels


def _say(choice: Choice, record: dict[str, Any]) -> None:
    """Prints the candidates, and what is chosen and how sure that is."""
    width = max(len(each["candidate"]) for each in record["candidates"])
    console.print("tuning: mean accuracy in the folds")
    for each in record["candidates"]:
        console.print(f"  {each['candidate']:<{width}}  {each['accuracy']:.3f}  ({counted(each['units'], 'fold')})")
    if choice.best_other is None:
        console.print(f"chosen: {record['chosen']}")
        return
    where = (
        "in the same folds that chose both, so that it is too high"
        if choice.is_optimistic
        else "in the last round alone"
    )
    error = "unknown" if record["standard_error"] is None else f"{record['standard_error']:.3f}"
    console.print(
        f"chosen: {record['chosen']}; {record['best_other']} minus {record['unguided']}: {choice.difference:+.3f}, standard "
        f"error {error}, {where}"
    )
