"""Trains and tests the classifiers of one row under one data seed."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from distdiff.caching.stages import StageCache
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, TrainingSet
from distdiff.data.images import LabelledImages
from distdiff.study.runs import RunResult
from distdiff.study.search import best, label
from distdiff.study.seeds import training_seed
from distdiff.study.testing import outcome_of
from distdiff.tracking.loggers import stage_logger

Timer = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class RowTraining:
    """The training of the row `name` on `data`, which the data seed `seed` gave.

    Each classifier is tested on `held_out` and, if they are given, on the `validation` images, on which the recipe is
    chosen among `recipes`. `title` begins the names of progress bars.
    """

    name: str
    seed: int
    data: TrainingSet
    recipes: list[Recipe]
    held_out: LabelledImages
    validation: LabelledImages | None
    trainer: DictConfig
    cache: StageCache
    title: str
    logger: Logger | None = None

    def choose(self) -> Recipe:
        """The recipe whose classifier, trained with the first training seed, is the best on validation images."""

        def accuracy_of(recipe: Recipe) -> float:
            return self._validated(recipe, self._trained(recipe, 0, f"{self.title}: search"))

        return best(self.recipes, accuracy_of)

    def results(self, recipe: Recipe, numbers: Iterable[int], timer: Timer) -> Iterable[RunResult]:
        """Trains and tests a classifier for each of the training seeds with these `numbers`."""
        classifiers = self._classifiers(recipe)
        for number in numbers:
            with timer(f"train {self.name}"):
                classifier = self._trained(recipe, number, f"{self.title}: train")
            with timer("test"):
                result = outcome_of(classifiers, classifier, self.held_out, self.data.fit)
                validated = None if self.validation is None else self._validated(recipe, classifier)
            yield RunResult(
                seed=self.seed,
                accuracy=result.accuracy,
                num_train=len(self.data),
                training_seed=number,
                steps=recipe.steps,
                classifier=recipe.classifier["name"],
                augmentation=recipe.augmentation["name"],
                validation_accuracy=validated,
                scores=result.scores,
                correct=result.correct,
            )

    def _validated(self, recipe: Recipe, classifier: ImageClassifier) -> float:
        return outcome_of(self._classifiers(recipe), classifier, self.validation, self.data.fit).accuracy

    def _trained(self, recipe: Recipe, number: int, title: str) -> ImageClassifier:
        place = f"train/{self.name}/seed{self.seed}"
        if number:
            place = f"{place}/training{number}"
        elif len(self.recipes) > 1:
            place = f"{place}/{label(recipe)}"
        curves = stage_logger(self.logger, place)
        seed = training_seed(self.seed, number)
        return self._classifiers(recipe).train_together(self.data, seed, title, curves)

    def _classifiers(self, recipe: Recipe) -> ClassifierTrainer:
        return ClassifierTrainer(recipe, self.trainer, self.cache)
