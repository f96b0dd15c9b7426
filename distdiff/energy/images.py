"""The energy of images: an encoder φ and the energy of its features."""

from collections.abc import Sequence

import torch
from torch import nn

from distdiff.encoders.base import Encoder
from distdiff.energy.base import Energy, PlannedImage


class ImageEnergy(nn.Module):
    """E(φ(x), t) of images, computed in the energy's dtype.

    Images are cast to that dtype (float32 or float64) before the encoder, because half precision would lose small
    gradients; the generator's precision does not matter.
    """

    def __init__(self, encoder: Encoder, energy: Energy) -> None:
        """`encoder` maps images (B, 3, H, W) in [0, 1] to features (B, D) of unit length."""
        super().__init__()
        self.encoder = encoder
        self.energy = energy

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of images (B, 3, H, W) in [0, 1], each against its target, (B,)."""
        return self.of_features(self.features(images), targets)

    def of_features(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of images whose features (B, D) are known, each against its target, (B,)."""
        return self.energy(features, targets)

    def targets(self, images: Sequence[PlannedImage], seed: int) -> torch.Tensor:
        """The index of what each image is compared with, (B,) int64 (`Energy.targets`)."""
        return self.energy.targets(images, seed)

    def columns(self, features: torch.Tensor, targets: torch.Tensor) -> dict[str, list]:
        """Further columns of the metadata beside the energy (`Energy.columns`)."""
        return self.energy.columns(features, targets)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """φ(x), (B, D), unit vectors, of images x (B, 3, H, W) in [0, 1]."""
        return self.encoder(images.to(self.energy.dtype))
