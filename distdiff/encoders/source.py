"""The sources of encoders φ. Every option of `conf/encoder` builds one source."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint
from distdiff.caching.stages import StageCache
from distdiff.classification.training import TrainingSet
from distdiff.encoders.base import Encoder
from distdiff.errors import UserError
from distdiff.keys import build

if TYPE_CHECKING:
    from distdiff.generator.latent_diffusion import LatentDiffusion

REVISION = 1  # increase when a change here changes the features of pretrained encoders


class FirstRound(ABC):
    """Generated images that an encoder learns from besides the real ones, before it guides any."""

    @abstractmethod
    def planned(self, data: TrainingSet, seed: int) -> TrainingSet:
        """The real images `data`, and the generated ones by their number, labels and identity, whether they are there or not."""

    @abstractmethod
    def made(self, data: TrainingSet, seed: int, title: str) -> TrainingSet:
        """The same, with images that are there: those that are lacking are made. `title` names the progress bars."""


class GeneratorInUse(ABC):
    """The generator of a job, for an encoder that shares it. A copy of the encoder shares it too."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "GeneratorInUse":
        return self

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """The `generator` keys that can change an image; weights are identified by their content."""

    @abstractmethod
    def load(self) -> "LatentDiffusion":
        """The generator on the trainer's device, loaded if it is not in memory."""


@dataclass(frozen=True)
class EncoderContext:
    """The context that every encoder option receives.

    - `trainer`: the `trainer` keys, for an encoder that is trained.
    - `cache`: the cache that keeps trained encoders.
    - `options`: the options to which the configuration refers by name, for instance `options.classifier.small_cnn`.
    - `first_round`: what makes generated images to learn from; None where nothing can make them.
    - `generator`: the generator whose images the encoder will see; None where there is none.
    """

    trainer: DictConfig
    cache: StageCache
    options: DictConfig
    first_round: FirstRound | None = None
    generator: GeneratorInUse | None = None


class EncoderSource(ABC):
    """Trains or loads φ for the real images of an expansion."""

    trains = False  # whether the source trains φ; if it does, the training is a stage of its own

    @abstractmethod
    def identity(self, data: TrainingSet, seed: int) -> str:
        """The fingerprint of the encoder that `encoder` will return, computed without training or loading φ."""

    @abstractmethod
    def encoder(self, data: TrainingSet, seed: int, title: str) -> Encoder:
        """The encoder φ. Raises `UserError` if φ cannot be trained or loaded.

        If φ is trained, `title` names the progress bar of the training.
        """

    def trained(self, data: TrainingSet, seed: int) -> list[str]:
        """The fingerprints of the classifiers that are trained for φ."""
        return []

    def is_ready(self, data: TrainingSet, seed: int) -> bool:
        """Whether `encoder` returns φ without training it, as far as that is known."""
        return not self.trains

    def learning_order(self, data: TrainingSet, seed: int, title: str) -> np.ndarray:
        """A number (n,) for each real image that says how late φ learnt the image; larger is later.

        Raises `UserError` if φ is not trained on the real images.
        """
        raise UserError("expansion.sources=hard is not allowed: this encoder does not learn from the real images")

    def fetch(self) -> dict[str, Path]:
        """Downloads the files that `encoder` needs from the hub.

        Returns {`key=value`: cache folder}, which is empty if all files are local.
        """
        return {}


def encoder_source(
    config: DictConfig,
    cache: StageCache,
    first_round: FirstRound | None = None,
    generator: GeneratorInUse | None = None,
) -> EncoderSource:
    """The source that the `encoder` keys of a job's configuration describe."""
    return build(config.encoder, EncoderContext(config.trainer, cache, config.options, first_round, generator))


class PretrainedSource(EncoderSource):
    """A pretrained φ, which does not depend on the real images and is loaded once."""

    def identity(self, data: TrainingSet, seed: int) -> str:
        return self._identity

    def encoder(self, data: TrainingSet, seed: int, title: str) -> Encoder:
        return self._encoder

    @abstractmethod
    def load(self) -> Encoder:
        """Loads φ from its files; raises `UserError` if φ cannot be loaded."""

    @abstractmethod
    def ingredients(self) -> dict[str, Any]:
        """The values that identify φ: the content of local weights, or the id and the commit of weights on the hub."""

    @cached_property
    def _identity(self) -> str:
        return fingerprint({"revision": REVISION} | self.ingredients())

    @cached_property
    def _encoder(self) -> Encoder:
        return self.load()
