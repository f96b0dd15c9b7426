"""Loads generators for all rows of a study, and computes what identifies each generator."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from distdiff.caching.fingerprint import fingerprint
from distdiff.console.output import console
from distdiff.encoders.source import GeneratorInUse
from distdiff.generator import pipelines
from distdiff.generator.beginnings import OF_PROCESS, Beginnings, Store
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.ranks.trainer import trainer_device
from distdiff.ranks.world import world

# Keys that change no image, and the architecture of generator=random, which the model's name holds.
NO_PART = ("draws", "usual_strength", "usual_batch_size", "gradient_checkpointing", "architecture")


class Generators:
    """Loads generators by their `generator` keys; only the generator that was asked for last stays in memory."""

    def __init__(self, keeps_beginnings: bool = False) -> None:
        """`keeps_beginnings`: whether settings that differ in their guidance alone share the steps before the first guided one.

        That takes main memory, and is of use where images of several settings are made from the same sources.
        """
        self.keeps_beginnings = keeps_beginnings
        self._identities: dict[str, dict[str, Any]] = {}
        self._loaded: tuple[str, LatentDiffusion] | None = None
        self._store = Store()
        self._said: set[str] = set()

    def load(self, keys: DictConfig, device: torch.device) -> LatentDiffusion:
        """The generator on `device`."""
        name = fingerprint(keys)
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = None  # freed first: two generators may not fit into memory
            self._loaded = name, pipelines.load_generator(keys, device)
            self.say(self._loaded[1].check_resolution())
            if self.keeps_beginnings:
                self._loaded[1].beginnings = self._beginnings(keys)
        return self._loaded[1].to(device)

    def _beginnings(self, keys: DictConfig) -> Beginnings:
        """Those of earlier jobs of this process are among them, unless this job has several ranks.

        All ranks but the leading one are new processes for each job, so what that one still has would not be of use.
        """
        return Beginnings(fingerprint(self.identity(keys)), self._store if world().size > 1 else OF_PROCESS)

    def identity(self, keys: DictConfig) -> dict[str, Any]:
        """The `generator` keys that can change an image; weights are identified by their content."""
        name = fingerprint(keys)
        if name not in self._identities:
            plain = OmegaConf.to_container(keys, resolve=True)
            own = {key: value for key, value in plain.items() if key not in NO_PART}
            self._identities[name] = own | pipelines.fingerprint(keys)
        return self._identities[name]

    def say(self, sentences: Iterable[str]) -> None:
        """Prints each sentence about a generator once, however many rows of a study use the generator."""
        for sentence in dict.fromkeys(sentences):
            if sentence not in self._said:
                self._said.add(sentence)
                console.print(sentence)

    def latent_dtype(self, keys: DictConfig) -> torch.dtype:
        """The dtype of latents outside of the networks, found without loading a network."""
        return torch.float64 if keys.dtype == "float64" else torch.float32


@dataclass(frozen=True)
class ChosenGenerator(GeneratorInUse):
    """The generator that a job's `generator` keys choose."""

    config: DictConfig
    generators: Generators

    def identity(self) -> Mapping[str, Any]:
        return self.generators.identity(self.config.generator)

    def load(self) -> LatentDiffusion:
        return self.generators.load(self.config.generator, trainer_device(self.config.trainer))
