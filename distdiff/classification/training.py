"""Trains a classifier once for everything that can change it, and measures its accuracy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_model, save_model

from distdiff.caching.fingerprint import fingerprint
from distdiff.caching.stages import StageCache
from distdiff.classification.data import ClassificationData, ImageTensors
from distdiff.classification.module import ClassifierTraining
from distdiff.classification.networks import ImageClassifier
from distdiff.config.instantiation import build
from distdiff.console.progress import StageProgress
from distdiff.data.images import LabelledImages, draw_few_shot
from distdiff.trainer import build_trainer

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


def few_shot_training_set(config: DictConfig, pool: LabelledImages, seed: int) -> TrainingSet:
    """The few real images of a study seed, `dataset.per_class` a class, drawn from the training pool."""
    images = draw_few_shot(pool, config.dataset.per_class, seed)
    return TrainingSet((images,), (images.fingerprint(),), config.dataset.fit)


class ClassifierTrainer:
    """Trains and tests classifiers as the `classifier`, `augmentation`, `train` and `trainer` keys say."""

    def __init__(self, config: DictConfig, cache: StageCache) -> None:
        self.config = config
        self.cache = cache

    def ingredients(self, data: TrainingSet, seed: int, steps: int | None = None) -> dict[str, Any]:
        """Everything that can change the trained weights."""
        recipe = OmegaConf.to_container(self.config.train, resolve=True)
        recipe.pop("expanded")
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
        """The classifier after its last step, from the cache where it was trained before."""

        def build(folder: Path) -> None:
            save_model(self._fit(data, seed, title, logger, steps or self.config.train.steps), str(folder / WEIGHTS))

        folder = self.cache.get(STAGE, self.ingredients(data, seed, steps), build)
        classifier = self._untrained(len(data.parts[0].class_names))
        load_model(classifier, str(folder / WEIGHTS))
        return classifier.eval()

    def accuracy(self, classifier: ImageClassifier, images: LabelledImages) -> float:
        """The fraction of `images` that `classifier` labels rightly."""
        data = ImageTensors([images], self.config.classifier.input_size, self.config.dataset.fit)
        module = ClassifierTraining(classifier, build(self.config.augmentation), self.config.train)
        trainer = build_trainer(self.config.trainer, enable_progress_bar=False)
        loader = ClassificationData(None, data, 0, self.config.train.batch_size, 0)
        (measured,) = trainer.test(module, loader, verbose=False)
        return measured["accuracy"]

    def _fit(self, data: TrainingSet, seed: int, title: str, logger: Logger | bool, steps: int) -> ImageClassifier:
        L.seed_everything(seed, verbose=False)
        recipe = OmegaConf.merge(self.config.train, {"steps": steps})
        classifier = self._untrained(len(data.parts[0].class_names))
        module = ClassifierTraining(classifier, build(self.config.augmentation), recipe)
        tensors = ImageTensors(data.parts, self.config.classifier.input_size, data.fit)
        trainer = build_trainer(
            self.config.trainer,
            max_steps=steps,
            logger=logger,
            callbacks=[StageProgress(title)],
            log_every_n_steps=max(1, steps // 20),
        )
        trainer.fit(
            module, ClassificationData(tensors, None, steps, recipe.batch_size, seed, recipe.synthetic_probability)
        )
        return classifier.cpu()

    def _untrained(self, num_classes: int) -> ImageClassifier:
        return build(self.config.classifier, num_classes=num_classes)
