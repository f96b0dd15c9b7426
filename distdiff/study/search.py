"""The settings among which a row's training is chosen on validation images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from omegaconf import DictConfig

from distdiff.caching.fingerprint import plain
from distdiff.classification.recipe import Recipe
from distdiff.config.command import OPTIONS
from distdiff.study.rows import Row
from distdiff.study.runs import RunResult


def recipes_of(row: Row, config: DictConfig) -> list[Recipe]:
    """The recipes from which the row's is chosen; a single one leaves nothing to choose. `config` is the job's.

    A row that ends in `_best` has those of `study.best`, any other row its own with each number of `study.tune_steps`.
    """
    own, study = Recipe.of(row.config), config.study
    if not row.best:
        return [replace(own, steps=steps) for steps in _distinct(study.tune_steps or [own.steps])]
    networks = _options(config, "classifier", study.best.classifiers)
    augmentations = _options(config, "augmentation", study.best.augmentations)
    steps = _distinct(study.best.steps or study.tune_steps or [own.steps, 3 * own.steps])
    return [
        replace(own, classifier=network, augmentation=augmentation, steps=number)
        for network, augmentation, number in product(networks, augmentations, steps)
    ]


def best(recipes: Sequence[Recipe], accuracy_of: Callable[[Recipe], float]) -> Recipe:
    """The recipe with the highest accuracy; of equal ones the first. Without a choice, no accuracy is asked for."""
    return recipes[0] if len(recipes) == 1 else max(recipes, key=accuracy_of)


def chosen_before(recipes: Sequence[Recipe], runs: Iterable[RunResult | None]) -> Recipe | None:
    """The recipe with which one of the finished `runs` was trained; None if there is no such run."""
    known = {(run.classifier, run.augmentation, run.steps) for run in runs if run is not None}
    return next((each for each in recipes if _settings(each) in known), None)


def _settings(recipe: Recipe) -> tuple[str, str, int]:
    """The recipe's settings that a search varies."""
    return recipe.classifier["name"], recipe.augmentation["name"], recipe.steps


def label(recipe: Recipe) -> str:
    """The recipe's settings that a search varies, as a name in charts."""
    return "-".join(map(str, _settings(recipe)))


def _options(config: DictConfig, group: str, names: Sequence[str] | None) -> list[Mapping[str, Any]]:
    """The options with these names; None stands for the one that the job's keys choose."""
    chosen = config[group]
    return [
        plain(chosen if name == chosen.name else config[OPTIONS][group][name])
        for name in _distinct(names or [chosen.name])
    ]


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
