"""Where φ comes from: what every option of `conf/encoder` builds."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint
from distdiff.caching.stages import StageCache
from distdiff.classification.training import TrainingSet
from distdiff.encoders.base import Encoder
from distdiff.errors import UserError
from distdiff.keys import build

REVISION = 1  # raise when a change here changes the features of pretrained encoders


@dataclass(frozen=True)
class EncoderContext:
    """What the program gives to every encoder option.

    - `trainer`: the `trainer` keys, for an encoder that is trained.
    - `cache`: where it keeps what it trained.
    - `options`: the options that the configuration refers to by name, `options.classifier.small_cnn` for instance.
    """

    trainer: DictConfig
    cache: StageCache
    options: DictConfig


class EncoderSource(ABC):
    """Brings φ for the real images of an expansion."""

    trains = False  # does it train φ, which then takes a stage of its own?

    @abstractmethod
    def identity(self, data: TrainingSet, seed: int) -> str:
        """The fingerprint of what `encoder` will return, known before anything is trained or loaded."""

    @abstractmethod
    def encoder(self, data: TrainingSet, seed: int, title: str) -> Encoder:
        """φ; `title` names the progress bar where it is trained. Raises `UserError` where it cannot be had."""

    def learning_order(self, data: TrainingSet, seed: int, title: str) -> np.ndarray:
        """How late φ learnt each real image, (n,): the larger, the later. Raises `UserError` where it learns from none."""
        raise UserError("expansion.sources=hard is not allowed: this encoder does not learn from the real images")

    def fetch(self) -> dict[str, Path]:
        """Downloads what `encoder` needs from the hub into its cache: `key=value` to the folder; empty where all is local."""
        return {}


def encoder_source(config: DictConfig, cache: StageCache) -> EncoderSource:
    """What the `encoder` keys of a job's configuration build."""
    return build(config.encoder, EncoderContext(config.trainer, cache, config.options))


class PretrainedSource(EncoderSource):
    """φ that depends on no image: it is loaded once."""

    def identity(self, data: TrainingSet, seed: int) -> str:
        return self._identity

    def encoder(self, data: TrainingSet, seed: int, title: str) -> Encoder:
        return self._encoder

    @abstractmethod
    def load(self) -> Encoder:
        """φ from its files; raises `UserError` where it cannot be had."""

    @abstractmethod
    def ingredients(self) -> dict[str, Any]:
        """What identifies φ: local weights by their content, those of the hub by id and commit."""

    @cached_property
    def _identity(self) -> str:
        return fingerprint({"revision": REVISION} | self.ingredients())

    @cached_property
    def _encoder(self) -> Encoder:
        return self.load()
