"""The settings among which a row's training is chosen on validation images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from omegaconf import DictConfig

from distdiff.caching.fingerprint import plain
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer
from distdiff.config.command import OPTIONS
from distdiff.study.rows import Row

LONGER = 3  # how many times as long the longer of two trainings is among which a `_best` row chooses by default


def recipes_of(row: Row, config: DictConfig, largest: int | None = None) -> list[Recipe]:
    """The recipes from which the row's is chosen; a single one leaves nothing to choose. `config` is the job's.

    A row that ends in `_best` has those of `study.best`, any other row its own with each number of `study.tune_steps`.
    `largest` is the number of images in the study's largest training set.
    """
    own, study = Recipe.of(row.config, largest), config.study
    if not row.best:
        return _with_steps(own, study.tune_steps) or [own]
    networks = _options(config, "classifier", study.best.classifiers)
    augmentations = _options(config, "augmentation", study.best.augmentations)
    lengths = _with_steps(own, study.best.steps or study.tune_steps) or [own, own.longer(LONGER)]
    return [
        replace(length, classifier=network, augmentation=augmentation)
        for network, augmentation, length in product(networks, augmentations, lengths)
    ]


def _with_steps(recipe: Recipe, numbers: Sequence[int] | None) -> list[Recipe]:
    return [recipe.with_steps(steps) for steps in _distinct(numbers or [])]


def best(trainers: Sequence[ClassifierTrainer], accuracy_of: Callable[[ClassifierTrainer], float]) -> ClassifierTrainer:
    """The trainer with the highest accuracy; of equal ones the first. Without a choice, no accuracy is asked for."""
    return trainers[0] if len(trainers) == 1 else max(trainers, key=accuracy_of)


def settings_of(recipe: Recipe) -> tuple[str, str, int | str]:
    """The settings that a search varies: network, augmentation, and number of steps (or of epochs, if that is given)."""
    length = f"{recipe.epochs}epochs" if recipe.steps is None else recipe.steps
    return recipe.classifier["name"], recipe.augmentation["name"], length


def label(recipe: Recipe) -> str:
    """The recipe's settings that a search varies, as a name in charts."""
    return "-".join(map(str, settings_of(recipe)))


def _options(config: DictConfig, group: str, names: Sequence[str] | None) -> list[Mapping[str, Any]]:
    """The options with these names; None stands for the one that the job's keys choose."""
    chosen = config[group]
    return [
        plain(chosen if name == chosen.name else config[OPTIONS][group][name])
        for name in _distinct(names or [chosen.name])
    ]


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
