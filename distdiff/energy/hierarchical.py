"""The hierarchical energy: how far features lie from their class's and their nearest group's prototype."""

import torch
from torch import nn
from torch.nn import functional as F

from distdiff.prototypes.hierarchical import Prototypes


class HierarchicalEnergy(nn.Module):
    """E(f, y) = λ_c ‖f − p_c[y]‖ + λ_g ‖f − p_g[y][j*]‖, j* the nearest group in cosine (Zhu et al., 2024, eq. 5-7).

    Takes features (B, D) and labels (B,), gives energies (B,), differentiable in the features. classes: (Y, D);
    groups: (Y, K, D); present: (Y, K) bool, as in `Prototypes`.
    """

    def __init__(self, prototypes: Prototypes, class_weight: float = 1.0, group_weight: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("classes", prototypes.classes, persistent=False)
        self.register_buffer("groups", prototypes.groups, persistent=False)
        self.register_buffer("present", prototypes.present, persistent=False)
        self.class_weight = class_weight
        self.group_weight = group_weight

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of features (B, D) of classes `labels` (B,)."""
        to_class = torch.linalg.vector_norm(features - self.classes[labels], dim=-1)
        nearest = self.groups[labels, self.nearest_group(features, labels)]
        to_group = torch.linalg.vector_norm(features - nearest, dim=-1)
        return self.class_weight * to_class + self.group_weight * to_group

    def nearest_group(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """j* (B,): the group of each image's own class with the largest cosine similarity."""
        cosine = torch.einsum("bd,bkd->bk", F.normalize(features.detach(), dim=-1), self.groups[labels])
        return cosine.masked_fill(~self.present[labels], -torch.inf).argmax(-1)


class ImageEnergy(nn.Module):
    """E(φ(x), y) of images: an encoder φ and the energy of its features, in the prototypes' precision.

    Half precision would lose small gradients, so images are cast to float32 (float64) before the encoder, whatever the
    generator's precision.
    """

    def __init__(self, encoder: nn.Module, energy: HierarchicalEnergy) -> None:
        """`encoder`: images (B, 3, H, W) in [0, 1] to unit features (B, D)."""
        super().__init__()
        self.encoder = encoder
        self.energy = energy

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of images (B, 3, H, W) in [0, 1] of classes `labels` (B,)."""
        return self.energy(self.features(images), labels)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """φ (B, D), unit vectors."""
        return self.encoder(images.to(self.energy.classes.dtype))

    def published_features(self, decoded: torch.Tensor) -> torch.Tensor:
        """What the published transform energy sees of a decoder's output in [-1, 1]: (B, D), not normalised."""
        return self.encoder.published_features(decoded.to(self.energy.classes.dtype))
