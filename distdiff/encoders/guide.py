"""The guide, an encoder φ whose features are those of a classifier.

The classifier is trained on the real images, and on a first round of generated ones if there is one, or read from a
checkpoint.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint_files, plain
from distdiff.caching.stages import StageCache
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.recipe import Recipe, adamw_one_cycle, classifier_identity
from distdiff.classification.training import ClassifierTrainer, TrainingSet, trained_before
from distdiff.encoders.base import Encoder
from distdiff.encoders.checkpoint import load_checkpoint
from distdiff.encoders.config import GuideKeys, RecipeKeys
from distdiff.encoders.location import checkpoint_path
from distdiff.encoders.source import EncoderContext, EncoderSource, FirstRound, PretrainedSource
from distdiff.errors import UserError
from distdiff.ranks.world import world


class GuideEncoder(Encoder):
    """The encoder φ whose features are the input of a classifier's head."""

    def __init__(self, classifier: ImageClassifier) -> None:
        super().__init__(classifier, classifier.preprocess, classifier.feature_dim)

    @property
    def classifier(self) -> ImageClassifier:
        return self.network

    def extract(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.classifier.backbone(inputs)


class TrainedGuide(EncoderSource):
    """A classifier that is trained on the real images, and used with the weights of the last training step.

    If it learns from a first round of generated images (`uses_first_round`), the classifier is trained on these too.
    """

    trains = True

    def __init__(self, recipe: Recipe, context: EncoderContext, uses_first_round: bool) -> None:
        self.classifiers = ClassifierTrainer(recipe, context.trainer, context.cache)
        self.uses_first_round = uses_first_round
        self._first_round = context.first_round

    def identity(self, data: TrainingSet, seed: int) -> str:
        return self.classifiers.fingerprint(self._planned(data, seed), seed)

    def encoder(self, data: TrainingSet, seed: int, title: str) -> GuideEncoder:
        known = self._planned(data, seed)
        if not world().once(lambda: self.classifiers.has(known, seed)):
            known = self._made(data, seed, title)
        return GuideEncoder(self.classifiers.train(known, seed, title))

    def is_ready(self, data: TrainingSet, seed: int) -> bool:
        return self.classifiers.has(self._planned(data, seed), seed)

    def learning_order(self, data: TrainingSet, seed: int, title: str) -> np.ndarray:
        known = self._planned(data, seed)
        if not world().once(lambda: self.classifiers.knows_order(known, seed)):
            known = self._made(data, seed, title)
        return self.classifiers.learning_order(known, seed, title)

    @property
    def first_round(self) -> FirstRound:
        """What makes the images of the first round. Raises `UserError` if there is no generator to make them."""
        if self._first_round is None:
            raise UserError("encoder.guide.copies is not allowed here: there is no generator to make copies")
        return self._first_round

    def _planned(self, data: TrainingSet, seed: int) -> TrainingSet:
        return self.first_round.planned(data, seed) if self.uses_first_round else data

    def _made(self, data: TrainingSet, seed: int, title: str) -> TrainingSet:
        return self.first_round.made(data, seed, title) if self.uses_first_round else data


class GuideCheckpoint(PretrainedSource):
    """A classifier that was trained elsewhere.

    If `checkpoint` is a file of weights, `classifier`, an option of `conf/classifier`, is the architecture. If
    `checkpoint` is a transformers folder, the folder describes the architecture and `classifier` is not used.
    """

    def __init__(self, checkpoint: str, classifier: Mapping[str, Any]) -> None:
        self.checkpoint = checkpoint
        self.classifier = classifier

    def load(self) -> GuideEncoder:
        return GuideEncoder(load_checkpoint(self.checkpoint, self.classifier))

    def ingredients(self) -> dict[str, Any]:
        path = checkpoint_path(self.checkpoint)
        ingredients = {"name": "guide", "checkpoint": fingerprint_files(path)}
        # A folder describes its own architecture, so `classifier` is not used.
        return ingredients if path.is_dir() else ingredients | {"classifier": classifier_identity(self.classifier)}


def guide_source(context: EncoderContext, *, checkpoint: str | None, guide: GuideKeys) -> EncoderSource:
    """The classifier that `guide` describes, trained on the real images or read from `checkpoint`."""
    recipe = guide_recipe(guide, context.options)
    if checkpoint is not None:
        return GuideCheckpoint(checkpoint, recipe.classifier)
    return TrainedGuide(recipe, context, uses_first_round=guide.copies > 0)


def guide_recipe(keys: RecipeKeys, options: DictConfig) -> Recipe:
    """The recipe that `keys` describe; `options` holds the classifier and the augmentation that `keys` name."""
    classifier = plain(options.classifier[keys.classifier])
    if keys.input_size is not None:
        classifier["input_size"] = keys.input_size
    return Recipe(
        classifier,
        plain(options.augmentation[keys.augmentation]),
        adamw_one_cycle(keys.learning_rate, keys.weight_decay),
        keys.steps,
        keys.batch_size,
    )


def guide_in_cache(identity: str, cache: StageCache) -> GuideEncoder | None:
    """The guide that was trained with this identity, as the manifest of an expanded dataset names it; None without."""
    classifier = trained_before(identity, cache)
    return None if classifier is None else GuideEncoder(classifier)
