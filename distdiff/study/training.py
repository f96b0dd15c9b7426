"""Trains and tests the classifiers of one row under one data seed."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from lightning.pytorch.loggers import Logger

from distdiff.classification.networks import ImageClassifier
from distdiff.classification.training import ClassifierTrainer, TrainingSet
from distdiff.data.images import LabelledImages
from distdiff.ranks.world import world
from distdiff.seeds import training_seed
from distdiff.study.measures import SCORES
from distdiff.study.runs import RunResult
from distdiff.study.search import best, label, settings_of
from distdiff.tracking.loggers import stage_logger

SEARCH, TRAIN = "search", "train"  # the stages of a row
Timer = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class RowTraining:
    """The training of the row `name` on `data`, which the data seed `seed` gave.

    Each classifier is tested on `held_out` and, if they are given, on the `validation` images, on which one of `trainers`
    is chosen. `title` begins the names of progress bars.
    """

    name: str
    seed: int
    data: TrainingSet
    trainers: list[ClassifierTrainer]
    held_out: LabelledImages
    validation: LabelledImages | None
    title: str
    logger: Logger | None = None

    def choose(self) -> ClassifierTrainer:
        """The trainer whose classifier, trained with the first training seed, is the best on validation images."""

        def accuracy_of(trainer: ClassifierTrainer) -> float:
            return self._validated(trainer, self.train(trainer, 0, SEARCH))

        return best(self.trainers, accuracy_of)

    def is_trained(self, trainer: ClassifierTrainer, number: int) -> bool:
        """Whether the classifier of this training seed is in the cache."""
        return world().once(lambda: trainer.has(self.data, training_seed(self.seed, number)))

    def chosen_before(self, runs: Iterable[RunResult | None]) -> ClassifierTrainer | None:
        """The trainer with whose settings one of the finished `runs` was trained; None if there is no such run."""
        known = {(run.classifier, run.augmentation, run.steps) for run in runs if run is not None}
        return next((each for each in self.trainers if settings_of(each.recipe_for(self.data)) in known), None)

    def results(self, trainer: ClassifierTrainer, numbers: Iterable[int], timer: Timer) -> Iterable[RunResult]:
        """Trains and tests a classifier for each of the training seeds with these `numbers`."""
        recipe = trainer.recipe_for(self.data)
        for number in numbers:
            with timer(f"train {self.name}"):
                classifier = self.train(trainer, number)
            with timer("test"):
                tested = trainer.test(classifier, self.held_out, self.data.fit)
                validated = None if self.validation is None else self._validated(trainer, classifier)
            yield RunResult(
                seed=self.seed,
                accuracy=tested.accuracy,
                num_train=len(self.data),
                training_seed=number,
                steps=recipe.steps,
                classifier=recipe.classifier["name"],
                augmentation=recipe.augmentation["name"],
                validation_accuracy=validated,
                scores=dict(
                    zip(SCORES, (tested.macro_f1, tested.worst.accuracy, tested.calibration_error), strict=True)
                ),
                correct=np.array(tested.correct),
            )

    def train(self, trainer: ClassifierTrainer, number: int, stage: str = TRAIN) -> ImageClassifier:
        """A classifier, trained with the training seed of this `number`. `stage` ends the title of its progress bar."""
        place = f"train/{self.name}/seed{self.seed}"
        if number:
            place = f"{place}/training{number}"
        elif len(self.trainers) > 1:
            place = f"{place}/{label(trainer.recipe)}"
        curves = stage_logger(self.logger, place)
        return trainer.train_together(self.data, training_seed(self.seed, number), f"{self.title}: {stage}", curves)

    def _validated(self, trainer: ClassifierTrainer, classifier: ImageClassifier) -> float:
        return trainer.accuracy(classifier, self.validation, self.data.fit)
