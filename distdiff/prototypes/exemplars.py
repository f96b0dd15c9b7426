"""Exemplars: the features of every single real image."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from distdiff.data.images import LabelledImages


@dataclass(frozen=True)
class Exemplars:
    """φ of n real images: features (n, D), of unit length; labels (n,) int64; `keys[i]` names image i inside its class."""

    features: torch.Tensor
    labels: np.ndarray
    keys: tuple[str, ...]

    @classmethod
    def of(cls, images: LabelledImages, features: torch.Tensor) -> "Exemplars":
        """The exemplars of `images` with these features (n, D)."""
        return cls(features, images.labels, images.keys)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Exemplars":
        return replace(self, features=self.features.to(device, dtype))

    def save(self, path: Path) -> None:
        """Writes the features as safetensors; `load` takes labels and keys from the images."""
        save_file({"features": self.features.contiguous()}, path)

    @classmethod
    def load(cls, path: Path, images: LabelledImages) -> "Exemplars":
        """Reads what `save` wrote for the exemplars of `images`."""
        return cls.of(images, load_file(path)["features"])
