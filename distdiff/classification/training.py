"""Trains classifiers and measures their accuracy.

Each combination of data, recipe and seed is trained only once.
"""

import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from omegaconf import DictConfig
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from distdiff.caching.fingerprint import fingerprint
from distdiff.caching.stages import StageCache
from distdiff.classification.config import LINEAR_PROBE, weights_version
from distdiff.classification.data import ClassificationData, ImageTensors
from distdiff.classification.features import FrozenFeatures
from distdiff.classification.learning import RecordLearning
from distdiff.classification.loss import class_weights
from distdiff.classification.module import ClassifierTraining
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.recipe import Recipe
from distdiff.classification.resuming import ResumableTraining, check_checkpoint
from distdiff.classification.running import Running
from distdiff.classification.selecting import BestWeights
from distdiff.classification.testing import Accuracies
from distdiff.console.progress import StageProgress
from distdiff.data.images import LabelledImages
from distdiff.data.notes import note
from distdiff.data.readable import checked, readable, say_unreadable
from distdiff.data.splits.few_shot import classes_with_fewer, draw_few_shot
from distdiff.errors import Stopped, UserError, first_line
from distdiff.keys import TARGET, build, option_identity
from distdiff.ranks.trainer import build_parallel_trainer, build_trainer, torch_flags_kept
from distdiff.ranks.world import world

try:
    from transformers.initialization import no_init_weights
except ImportError:  # transformers 4
    from transformers.modeling_utils import no_init_weights

STAGE, REVISION = "classifiers", 1  # increase REVISION when a change here changes trained weights
LEARNING = "learning"
WEIGHTS, ORDER = "model.safetensors", "order.safetensors"


@dataclass(frozen=True)
class TrainingSet:
    """Images to train on, in parts, with the fingerprint of each part's content."""

    parts: tuple[LabelledImages, ...]
    fingerprints: tuple[str, ...]
    fit: str

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def with_part(self, images: LabelledImages, identity: str) -> "TrainingSet":
        return TrainingSet((*self.parts, images), (*self.fingerprints, identity), self.fit)


def training_set(images: LabelledImages, fit: str) -> TrainingSet:
    """The training set that consists of the readable images among `images`."""
    images, identity = readable(images, "training")
    return TrainingSet((images,), (identity,), fit)


def few_shot_training_set(config: DictConfig, pool: LabelledImages, seed: int) -> TrainingSet:
    """The few real images of a study seed: `dataset.per_class` images of each class, drawn from the training pool.

    If an image cannot be read, the next image in the random order of the draw takes its place.
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
    if (
        seed == config.seed and (short := classes_with_fewer(images, per_class)) is not None
    ):  # the first seed of a study
        note(images.name, short)
    return TrainingSet((images,), (identity,), config.dataset.fit)


class ClassifierTrainer:
    """Trains and tests classifiers by one recipe, on the device that the `trainer` keys name.

    `running` is for downstream classifiers. Those that are part of the method, such as the guide, are trained without.
    """

    def __init__(
        self, recipe: Recipe, trainer_config: DictConfig, cache: StageCache, running: Running | None = None
    ) -> None:
        self.recipe = recipe
        self.trainer_config = trainer_config
        self.cache = cache
        self.running = Running() if running is None else running
        backbone = option_identity(recipe.classifier) | weights_version(recipe.classifier)
        self.features = FrozenFeatures(backbone, trainer_config, cache)

    def with_steps(self, steps: int) -> "ClassifierTrainer":
        """A trainer whose recipe differs from this trainer's recipe only in the number of `steps`."""
        recipe = self.recipe.with_steps(steps)
        return ClassifierTrainer(recipe, self.trainer_config, self.cache, self.running)

    def recipe_for(self, data: TrainingSet) -> Recipe:
        """The recipe with its number of steps for these images."""
        real = len(data.parts[0])
        return self.recipe.for_images(real, len(data) - real)

    def ingredients(self, data: TrainingSet, seed: int) -> dict[str, Any]:
        """Everything that can change the trained weights.

        Raises `UserError` if the data have only one class, or other classes than those for which the recipe has weights.
        """
        if len(data.parts[0].class_names) < 2:
            raise UserError(
                f"dataset {data.parts[0].name} has one class, {data.parts[0].class_names[0]}: a classifier needs two; "
                "expand.py expands one with encoder=clip, hf, efficientnet_lite0 or generator, which are not trained on it"
            )
        class_weights(self.recipe, data.parts)
        return {
            "revision": REVISION,
            "recipe": self.recipe_for(data).identity(has_synthetic=len(data.parts) > 1),
            "data": data.fingerprints,
            "class_names": data.parts[0].class_names,
            "fit": data.fit,
            "precision": self.trainer_config.precision,
            "seed": seed,
            **weights_version(self.recipe.classifier),
            **self.running.identity(),
        }

    def fingerprint(self, data: TrainingSet, seed: int) -> str:
        return fingerprint(self.ingredients(data, seed))

    def weights(self, data: TrainingSet, seed: int) -> Path:
        """The file in the cache with the weights of the classifier that `train_together` returns."""
        return self.cache.folder(STAGE, self._ingredients_together(data, seed)) / WEIGHTS

    def has(self, data: TrainingSet, seed: int) -> bool:
        """Whether the classifier that `train` returns is in the cache."""
        return self.cache.has(STAGE, self.ingredients(data, seed))

    def train(self, data: TrainingSet, seed: int, title: str, logger: Logger | bool = False) -> ImageClassifier:
        """The classifier after its last training step or, if `train.selection` says so, with its best weights.

        The classifier is trained on one device, or read from the cache if it was trained before.
        """
        ingredients = self.ingredients(data, seed)
        self._check_checkpoint(data, ingredients)

        def fill(folder: Path) -> None:
            with torch_flags_kept():
                trainer = build_trainer(self.trainer_config, **self._stage(data, title, logger, ingredients))
                save_model(self._fit(trainer, data, seed), str(folder / WEIGHTS))

        return self._trained(self.cache.get(STAGE, ingredients, fill), data)

    def learning_order(self, data: TrainingSet, seed: int, title: str) -> np.ndarray:
        """How late the classifier learnt each original image: one number per image, (n,). A larger number is later.

        To find these numbers, the classifier that `train` returns is trained a second time.
        """

        def fill(folder: Path) -> None:
            originals = [replace(data.parts[0], soft=None)]  # only the heaviest class of a soft label counts
            classifier = self._untrained(data)
            images = self._images(classifier, originals, data.fit)
            images = self.features.to_train(classifier, images, data.fingerprints[:1], data.fit)
            record = RecordLearning(images, self.recipe_for(data).steps)
            stage = self._stage(data, title, False, {})
            trainer = build_trainer(self.trainer_config, **stage | {"callbacks": [*stage["callbacks"], record]})
            self._fit(trainer, data, seed)
            save_file({"order": record.order()}, folder / ORDER)

        folder = self.cache.get(LEARNING, self.ingredients(data, seed), fill)
        return load_file(folder / ORDER)["order"].numpy()

    def knows_order(self, data: TrainingSet, seed: int) -> bool:
        """Whether what `learning_order` returns is in the cache."""
        return self.cache.has(LEARNING, self.ingredients(data, seed))

    def train_together(
        self, data: TrainingSet, seed: int, title: str, logger: Logger | bool = False
    ) -> ImageClassifier:
        """Trains as `train` does, but on all ranks of the job. Each rank has its part of every batch (DDP).

        Each rank draws its own augmentations, so the number of ranks is part of the classifier's identity in the cache.
        The guide is not trained by this method, so generated images do not depend on the number of ranks.
        """
        ranks = world()
        if ranks.size == 1:
            return self.train(data, seed, title, logger)

        if self.recipe.batch_size % ranks.size:
            raise UserError(
                f"train.batch_size={self.recipe.batch_size} is not allowed: it has to be a multiple of {ranks.size}, the "
                "number of ranks that share each batch"
            )

        if self.recipe.batch_size < 2 * ranks.size:
            raise UserError(
                f"train.batch_size={self.recipe.batch_size} is not allowed: at least {2 * ranks.size}, as each of the "
                f"{ranks.size} ranks needs two images of a batch to normalize it"
            )

        ingredients = self._ingredients_together(data, seed)
        self._check_checkpoint(data, ingredients)

        def fill(folder: Path | None) -> None:
            with ranks.process_group(), torch_flags_kept():
                stage = self._stage(data, title, logger, ingredients)
                trainer = build_parallel_trainer(self.trainer_config, **stage)
                classifier = self._fit(trainer, data, seed)
            if folder is not None:
                save_model(classifier, str(folder / WEIGHTS))

        return self._trained(self.cache.get_together(STAGE, ingredients, fill), data)

    def _ingredients_together(self, data: TrainingSet, seed: int) -> dict[str, Any]:
        ranks = {} if world().size == 1 else {"ranks": world().size}
        return self.ingredients(data, seed) | ranks

    def _trained(self, folder: Path, data: TrainingSet) -> ImageClassifier:
        return _read_classifier(folder, self.recipe.classifier, data.parts[0].class_names)

    def accuracy(self, classifier: ImageClassifier, images: LabelledImages, fit: str) -> float:
        """The fraction of `images` that `classifier` classifies correctly, measured by the leading rank."""
        return self.test(classifier, images, fit).accuracy

    def test(self, classifier: ImageClassifier, images: LabelledImages, fit: str) -> Accuracies:
        """What `classifier` does with `images`, measured by the leading rank."""
        return world().once(lambda: self._test(classifier, images, fit))

    def _test(self, classifier: ImageClassifier, images: LabelledImages, fit: str) -> Accuracies:
        images = replace(images, soft=None)  # only the heaviest class of a soft label counts
        data = self._images(classifier, [images], fit, len(images))
        data = self.features.to_test(classifier, data, images.identity, fit)
        module = ClassifierTraining(classifier, nn.Identity(), self.recipe)
        trainer = build_trainer(self.trainer_config, enable_progress_bar=False)
        trainer.test(module, ClassificationData(None, data, 0, self.recipe.batch_size, 0), verbose=False)
        return module.tested.result(images.class_names)

    def _check_checkpoint(self, data: TrainingSet, ingredients: Mapping[str, Any]) -> None:
        """Raises `UserError` if the training is to be resumed from a checkpoint that is not of this training."""
        if (path := self.running.ckpt_path) is not None:
            world().once(lambda: check_checkpoint(path, ingredients, self._untrained(data)))

    def _stage(
        self, data: TrainingSet, title: str, logger: Logger | bool, ingredients: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The options of a Lightning trainer that trains by this recipe."""
        recipe, running = self.recipe_for(data), self.running
        sizes = (recipe.steps, len(data), recipe.batch_size, title)
        callbacks = [StageProgress(title), *running.build_callbacks(*sizes, logger)]
        if running.saves:
            callbacks.append(ResumableTraining(ingredients))
        return {
            "max_steps": recipe.steps,
            "logger": logger,
            "callbacks": callbacks,
            "log_every_n_steps": max(1, recipe.steps // 20),
            **running.trainer_arguments(*sizes),
        }

    def _fit(self, trainer: L.Trainer, data: TrainingSet, seed: int) -> ImageClassifier:
        L.seed_everything(seed, verbose=False)
        recipe, running, classifier = self.recipe_for(data), self.running, self._untrained(data)
        probed = classifier.freeze == LINEAR_PROBE
        weights = class_weights(recipe, data.parts)
        augmentation = nn.Identity() if probed else build(recipe.augmentation)
        module = ClassifierTraining(classifier, augmentation, recipe, weights)
        size, batches = recipe.loaded_size(classifier.input_size), recipe.steps * running.accumulated
        tensors = ImageTensors(
            *(data.parts, size, data.fit, batches * recipe.batch_size),
            centre=classifier.input_size if probed else None,
            synthetic_weight=recipe.synthetic_weight,
        )
        tensors = self.features.to_train(classifier, tensors, data.fingerprints, data.fit)
        if world().size > 1:
            torch.manual_seed(seed + 1000 * world().rank)  # augmentations, unlike initial weights, differ by rank
        data_module = ClassificationData(
            tensors,
            self._watched(classifier, data, batches),
            batches,
            recipe.batch_size,
            seed,
            recipe.mixing,
            recipe.synthetic_probability,
            shard=world().rank,
            num_shards=world().size,
            repeated=running.repeated(batches),
        )
        try:
            trainer.fit(module, data_module, ckpt_path=running.ckpt_path, weights_only=True)
        except SystemExit as ending:  # raised by Lightning on Ctrl-C and, without a status, on SIGTERM
            raise Stopped(signal.SIGTERM if isinstance(ending, SIGTERMException) else signal.SIGINT) from None
        except MisconfigurationException as error:
            raise UserError(f"trainer: {first_line(error)}") from None
        classifier.cpu()
        for best in (each for each in trainer.callbacks if isinstance(each, BestWeights)):
            best.give_to(classifier)
        return classifier

    def _watched(self, classifier: ImageClassifier, data: TrainingSet, batches: int) -> ImageTensors | None:
        """The images on which the classifier is looked at while it is trained."""
        if self.running.watched is None:
            return None
        images = replace(self.running.watched[0], soft=None)
        watched = self._images(classifier, [images], data.fit, batches * len(images))
        return self.features.to_test(classifier, watched, images.identity, data.fit)

    def _images(
        self, classifier: ImageClassifier, parts: list[LabelledImages], fit: str, samples: int = 0
    ) -> ImageTensors:
        """Images as the classifier sees them in a test: without augmentation, and the middle of larger squares."""
        size = self.recipe.loaded_size(classifier.input_size)
        return ImageTensors(parts, size, fit, samples, centre=classifier.input_size)

    def _untrained(self, data: TrainingSet) -> ImageClassifier:
        return build(self.recipe.classifier, len(data.parts[0].class_names))


def trained_before(identity: str, cache: StageCache) -> ImageClassifier | None:
    """The classifier in the cache whose `ClassifierTrainer.fingerprint` is `identity`; None if there is none."""
    found = cache.find(STAGE, identity)
    if found is None:
        return None
    folder, ingredients = found
    return _read_classifier(folder, ingredients["recipe"]["classifier"], ingredients["class_names"])


def _read_classifier(folder: Path, option: Mapping[str, Any], class_names: Sequence[str]) -> ImageClassifier:
    """The classifier whose weights are in `folder`."""
    # The file holds every weight, so drawing them first is wasted: a quarter of a second for a ResNet-50. A user's own
    # network may draw something that it does not save, so it is built as usual. No other thread builds a network.
    with no_init_weights() if option[TARGET].startswith("distdiff.") else nullcontext():
        classifier = build(option, len(class_names))
    load_model(classifier, str(folder / WEIGHTS))
    return classifier.eval()
