"""Loads each generator once, whichever rows of a study ask for it, and says what identifies it."""

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from distdiff.caching.fingerprint import fingerprint
from distdiff.generator import pipelines
from distdiff.generator.latent_diffusion import LatentDiffusion

NO_PART = ("draws", "usual_strength", "usual_batch_size", "gradient_checkpointing")  # keys that change no image


class Generators:
    """Generators by their `generator` keys. Of several the last one that was asked for stays in memory."""

    def __init__(self) -> None:
        self._identities: dict[str, dict[str, Any]] = {}
        self._loaded: tuple[str, LatentDiffusion] | None = None

    def load(self, keys: DictConfig) -> LatentDiffusion:
        name = fingerprint(keys)
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = None  # two would not fit
            self._loaded = name, pipelines.load_generator(keys)
        return self._loaded[1]

    def identity(self, keys: DictConfig) -> dict[str, Any]:
        """The `generator` keys that can change an image, weights by what is in them."""
        name = fingerprint(keys)
        if name not in self._identities:
            plain = OmegaConf.to_container(keys, resolve=True)
            own = {key: value for key, value in plain.items() if key not in NO_PART}
            self._identities[name] = own | pipelines.fingerprint(keys)
        return self._identities[name]

    def latent_dtype(self, keys: DictConfig) -> torch.dtype:
        """The precision of latents outside of the networks; known without loading any."""
        return torch.float64 if keys.dtype == "float64" else torch.float32
