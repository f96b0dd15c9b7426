"""The guide, an encoder φ whose features are those of a classifier, or of several.

A classifier is trained on the real images, and on a first round of generated ones if there is one, or read from a
checkpoint.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint, fingerprint_files, plain
from distdiff.caching.stages import StageCache
from distdiff.classification.ensemble import Ensemble
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.recipe import Recipe, adamw_one_cycle, classifier_identity
from distdiff.classification.training import ClassifierTrainer, TrainingSet, trained_before
from distdiff.encoders.base import Encoder
from distdiff.encoders.checkpoint import load_checkpoint
from distdiff.encoders.config import MEMBERS, GuideKeys, RecipeKeys
from distdiff.encoders.location import checkpoint_path
from distdiff.encoders.source import EncoderContext, EncoderSource, FirstRound, PretrainedSource
from distdiff.errors import UserError
from distdiff.ranks.world import world
from distdiff.seeds import training_seed

ENSEMBLES = "ensembles"


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

    If it learns from a first round of generated images (`uses_first_round`), the classifier is trained on these too. If it
    has several `members`, they are trained alike but for their seeds, and make an `Ensemble`.
    """

    trains = True

    def __init__(self, recipe: Recipe, context: EncoderContext, uses_first_round: bool, members: int = 1) -> None:
        self.classifiers = ClassifierTrainer(recipe, context.trainer, context.cache)
        self.uses_first_round = uses_first_round
        self.members = members
        self._first_round = context.first_round

    def identity(self, data: TrainingSet, seed: int) -> str:
        found = self.trained(data, seed)
        return found[0] if self.members == 1 else fingerprint(_of_members(found))

    def trained(self, data: TrainingSet, seed: int) -> list[str]:
        known = self._planned(data, seed)
        return [self.classifiers.fingerprint(known, own) for own in self._seeds(seed)]

    def encoder(self, data: TrainingSet, seed: int, title: str) -> GuideEncoder:
        known = self._planned(data, seed)
        if not world().once(lambda: self._are_trained(known, seed)):
            known = self._made(data, seed, title)
        found = [self.classifiers.train(known, own, name) for own, name in self._named(seed, title)]
        if self.members == 1:
            return GuideEncoder(found[0])
        # Nothing but its name, by which `guide_in_cache` finds its members.
        self.classifiers.cache.get(ENSEMBLES, _of_members(self.trained(data, seed)), lambda folder: None)
        return GuideEncoder(Ensemble(found))

    def is_ready(self, data: TrainingSet, seed: int) -> bool:
        return self._are_trained(self._planned(data, seed), seed)

    def learning_order(self, data: TrainingSet, seed: int, title: str) -> np.ndarray:
        """As `EncoderSource` says; of several members, the mean."""
        known = self._planned(data, seed)
        if not world().once(lambda: all(self.classifiers.knows_order(known, own) for own in self._seeds(seed))):
            known = self._made(data, seed, title)
        orders = [self.classifiers.learning_order(known, own, name) for own, name in self._named(seed, title)]
        return orders[0] if self.members == 1 else np.mean(orders, axis=0)

    def _seeds(self, seed: int) -> list[int]:
        """The seed of each member: those of a study's trainings, so that classifiers of one recipe are trained once."""
        return [training_seed(seed, number) for number in range(self.members)]

    def _named(self, seed: int, title: str) -> list[tuple[int, str]]:
        """The seed of each member, with the title of its training's progress bar."""
        if self.members == 1:
            return [(seed, title)]
        return [(own, f"{title} {number} of {self.members}") for number, own in enumerate(self._seeds(seed), 1)]

    def _are_trained(self, known: TrainingSet, seed: int) -> bool:
        return all(self.classifiers.has(known, own) for own in self._seeds(seed))

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
    """The classifiers that `guide` describes, trained on the real images, or one that is read from `checkpoint`."""
    recipe = guide_recipe(guide, context.options)
    if checkpoint is not None:
        return GuideCheckpoint(checkpoint, recipe.classifier)
    return TrainedGuide(recipe, context, uses_first_round=guide.copies > 0, members=guide.members)


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
    ensemble = cache.find(ENSEMBLES, identity)
    found = [trained_before(each, cache) for each in ([identity] if ensemble is None else ensemble[1][MEMBERS])]
    if None in found:
        return None
    return GuideEncoder(found[0] if ensemble is None else Ensemble(found))


def _of_members(identities: list[str]) -> dict[str, list[str]]:
    """What identifies a guide of several members."""
    return {MEMBERS: identities}
