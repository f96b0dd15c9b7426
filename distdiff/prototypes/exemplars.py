"""Exemplars, which are the features of the individual real images."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from distdiff.data.images import LabelledImages


@dataclass(frozen=True)
class Exemplars:
    """The features of n real images.

    `features` (n, D) are φ's features of the images, of unit length, and `labels` (n,) int64 are their classes.
    `keys[i]` is the key that names image i within its class.
    """

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
        """Writes only the features, as a safetensors file; `load` takes the labels and keys from the images."""
        save_file({"features": self.features.contiguous()}, path)

    @classmethod
    def load(cls, path: Path, images: LabelledImages) -> "Exemplars":
        """The exemplars of `images`, with the features in the file that `save` wrote."""
        return cls.of(images, load_file(path)["features"])
