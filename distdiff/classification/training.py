"""Trains a classifier once for everything that can change it, and measures its accuracy."""

import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_model, save_model

from distdiff.caching.fingerprint import fingerprint
from distdiff.caching.stages import StageCache
from distdiff.classification.data import ClassificationData, ImageTensors
from distdiff.classification.module import ClassifierTraining
from distdiff.classification.networks import ImageClassifier
from distdiff.config.instantiation import build
from distdiff.console.progress import StageProgress
from distdiff.data.images import LabelledImages
from distdiff.data.readable import checked, readable, say_unreadable
from distdiff.data.splits.few_shot import draw_few_shot
from distdiff.errors import Stopped, UserError
from distdiff.ranks.trainer import build_parallel_trainer, build_trainer
from distdiff.ranks.world import world

STAGE, REVISION = "classifiers", 1  # raise REVISION when a change here changes what is learnt
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class TrainingSet:
    """Images to train on, each part with the fingerprint of its content."""

    parts: tuple[LabelledImages, ...]
    fingerprints: tuple[str, ...]
    fit: str

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def with_part(self, images: LabelledImages, identity: str) -> "TrainingSet":
        return TrainingSet((*self.parts, images), (*self.fingerprints, identity), self.fit)


def training_set(images: LabelledImages, fit: str) -> TrainingSet:
    """Those of `images` that can be read."""
    images, identity = readable(images, "training")
    return TrainingSet((images,), (identity,), fit)


def few_shot_training_set(config: DictConfig, pool: LabelledImages, seed: int) -> TrainingSet:
    """The few real images of a study seed, `dataset.per_class` a class, drawn from the training pool.

    In place of an image that cannot be read comes the next of the draw.
    """
    per_class, lost = config.dataset.per_class, ()
    while True:
        images, identity = checked(draw_few_shot(pool, per_class, seed, lost))
        found = tuple(image for image in images.unreadable if image not in lost)
        lost += found
        if per_class is None or not found:
            break
    images = replace(images, unreadable=lost)
    world().once(lambda: say_unreadable(images, "training"))
    return TrainingSet((images,), (identity,), config.dataset.fit)


@dataclass(frozen=True)
class ClassAccuracy:
    """The fraction of a class's `num_test` images that was labelled rightly; 0 where there are none."""

    class_name: str
    accuracy: float
    num_test: int


@dataclass(frozen=True)
class Accuracies:
    """The fraction of all images that was labelled rightly, and that of each class, in their order."""

    accuracy: float
    classes: tuple[ClassAccuracy, ...]


class ClassifierTrainer:
    """Trains and tests classifiers as the `classifier`, `augmentation`, `train` and `trainer` keys say."""

    def __init__(self, config: DictConfig, cache: StageCache) -> None:
        self.config = config
        self.cache = cache

    def ingredients(self, data: TrainingSet, seed: int, steps: int | None = None) -> dict[str, Any]:
        """Everything that can change the trained weights; raises `UserError` where there is nothing to tell apart."""
        if len(data.parts[0].class_names) < 2:
            raise UserError(
                f"dataset {data.parts[0].name} has one class, {data.parts[0].class_names[0]}: a classifier needs two; "
                "expand.py expands one with encoder=clip or encoder=hf, which are not trained"
            )
        recipe = OmegaConf.to_container(self.config.train, resolve=True)
        for choice in ("expanded", "where"):  # of images, which `data` identifies
            recipe.pop(choice)
        return {
            "revision": REVISION,
            "classifier": self.config.classifier,
            "augmentation": self.config.augmentation,
            "recipe": recipe | ({"steps": steps} if steps else {}),
            "data": data.fingerprints,
            "class_names": data.parts[0].class_names,
            "fit": data.fit,
            "precision": self.config.trainer.precision,
            "seed": seed,
        }

    def fingerprint(self, data: TrainingSet, seed: int, steps: int | None = None) -> str:
        return fingerprint(self.ingredients(data, seed, steps))

    def train(
        self, data: TrainingSet, seed: int, title: str, logger: Logger | bool = False, steps: int | None = None
    ) -> ImageClassifier:
        """The classifier after its last step, from the cache where it was trained before; on one device."""

        def build(folder: Path) -> None:
            trainer = build_trainer(self.config.trainer, **self._stage(title, logger, steps))
            save_model(self._fit(trainer, data, seed, steps), str(folder / WEIGHTS))

        return self._trained(self.cache.get(STAGE, self.ingredients(data, seed, steps), build), data)

    def train_together(
        self, data: TrainingSet, seed: int, title: str, logger: Logger | bool = False
    ) -> ImageClassifier:
        """As `train`, but by all of the job's ranks, each with its part of every batch (DDP).

        Each rank draws its own augmentations, so the number of ranks is part of what identifies the result. What images
        depend on, the guide, is trained on one device, so that the same images come from any number of them.
        """
        ranks = world()
        if ranks.size == 1:
            return self.train(data, seed, title, logger)

        if self.config.train.batch_size % ranks.size:
            raise UserError(
                f"train.batch_size={self.config.train.batch_size} is not allowed: a multiple of the {ranks.size} ranks that "
                "share each batch"
            )

        def build(folder: Path | None) -> None:
            with ranks.process_group():
                trainer = build_parallel_trainer(self.config.trainer, **self._stage(title, logger))
                classifier = self._fit(trainer, data, seed)
            if folder is not None:
                save_model(classifier, str(folder / WEIGHTS))

        ingredients = self.ingredients(data, seed) | {"ranks": ranks.size}
        return self._trained(self.cache.get_together(STAGE, ingredients, build), data)

    def _trained(self, folder: Path, data: TrainingSet) -> ImageClassifier:
        classifier = self._untrained(len(data.parts[0].class_names))
        load_model(classifier, str(folder / WEIGHTS))
        return classifier.eval()

    def accuracy(self, classifier: ImageClassifier, images: LabelledImages) -> float:
        """The fraction of `images` that `classifier` labels rightly; measured by the leading rank."""
        return self.test(classifier, images).accuracy

    def test(self, classifier: ImageClassifier, images: LabelledImages) -> Accuracies:
        """As `accuracy`, class by class too."""
        return world().once(lambda: self._test(classifier, images))

    def _test(self, classifier: ImageClassifier, images: LabelledImages) -> Accuracies:
        data = ImageTensors([images], self.config.classifier.input_size, self.config.dataset.fit, len(images))
        module = ClassifierTraining(classifier, build(self.config.augmentation), self.config.train)
        trainer = build_trainer(self.config.trainer, enable_progress_bar=False)
        loader = ClassificationData(None, data, 0, self.config.train.batch_size, 0)
        (measured,) = trainer.test(module, loader, verbose=False)
        counts = np.bincount(images.labels, minlength=len(images.class_names)).tolist()
        classes = tuple(map(ClassAccuracy, images.class_names, module.tested.tolist(), counts))
        return Accuracies(measured["accuracy"], classes)

    def _stage(self, title: str, logger: Logger | bool, steps: int | None = None) -> dict[str, Any]:
        """What a trainer is told of a training."""
        steps = steps or self.config.train.steps
        return {
            "max_steps": steps,
            "logger": logger,
            "callbacks": [StageProgress(title)],
            "log_every_n_steps": max(1, steps // 20),
        }

    def _fit(self, trainer: L.Trainer, data: TrainingSet, seed: int, steps: int | None = None) -> ImageClassifier:
        L.seed_everything(seed, verbose=False)
        recipe = OmegaConf.merge(self.config.train, {"steps": steps or self.config.train.steps})
        classifier = self._untrained(len(data.parts[0].class_names))
        module = ClassifierTraining(classifier, build(self.config.augmentation), recipe)
        samples = recipe.steps * recipe.batch_size
        tensors = ImageTensors(data.parts, self.config.classifier.input_size, data.fit, samples)
        options = (recipe.steps, recipe.batch_size, seed, recipe.synthetic_probability)
        if world().size > 1:
            torch.manual_seed(seed + 1000 * world().rank)  # its own augmentations; weights are equal already
        data_module = ClassificationData(tensors, None, *options, shard=world().rank, num_shards=world().size)
        try:
            trainer.fit(module, data_module)
        except SystemExit as ending:  # so Lightning answers Ctrl-C, and SIGTERM without a status
            raise Stopped(signal.SIGTERM if isinstance(ending, SIGTERMException) else signal.SIGINT) from None
        return classifier.cpu()

    def _untrained(self, num_classes: int) -> ImageClassifier:
        return build(self.config.classifier, num_classes=num_classes)
