"""The energy of images, made of an encoder φ and of an energy of φ's features."""

from collections.abc import Sequence

import torch
from torch import nn

from distdiff.encoders.base import Encoder
from distdiff.energy.base import Energy, PlannedImage


class ImageEnergy(nn.Module):
    """The energy E(φ(x), t) of images x with targets t, computed in the energy's dtype.

    Images are cast to this dtype (float32 or float64) before they are encoded, even if the generator runs in half
    precision, because half precision would lose small gradients. (The network of `encoder=generator` keeps its precision.)
    """

    def __init__(self, encoder: Encoder, energy: Energy) -> None:
        """`encoder` maps images (B, 3, H, W) in [0, 1] to features (B, D) of unit length."""
        super().__init__()
        self.encoder = encoder
        self.energy = energy

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of images (B, 3, H, W) in [0, 1], where `targets` (B,) holds each image's target."""
        return self.of_features(self.features(images), targets)

    def of_features(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of images with known features (B, D), where `targets` (B,) holds each image's target."""
        return self.energy(features, targets)

    def targets(self, images: Sequence[PlannedImage], seed: int) -> torch.Tensor:
        """The index (B,) int64 of each image's target (`Energy.targets`)."""
        return self.energy.targets(images, seed)

    def columns(self, features: torch.Tensor, targets: torch.Tensor) -> dict[str, list]:
        """Columns of the metadata besides the energy (`Energy.columns`)."""
        return self.energy.columns(features, targets)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """φ(x), which are unit vectors (B, D), of images x (B, 3, H, W) in [0, 1]."""
        return self.encoder(images.to(self.energy.dtype))
