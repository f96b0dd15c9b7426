"""The hierarchical energy: how far an image lies from its class's and its nearest group's prototype."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from distdiff.prototypes.hierarchical import Prototypes


class HierarchicalEnergy:
    """E(x, y) = λ_c ‖φ(x) − p_c[y]‖ + λ_g ‖φ(x) − p_g[y][j*]‖, j* the nearest group in cosine (Zhu et al., 2024, eq. 5-7).

    `encoder` is φ: images (B, 3, H, W) in [0, 1] to unit features (B, D).
    """

    def __init__(
        self,
        encoder: Callable[[torch.Tensor], torch.Tensor],
        prototypes: Prototypes,
        class_weight: float = 1.0,
        group_weight: float = 1.0,
    ) -> None:
        self.encoder = encoder
        self.prototypes = prototypes
        self.class_weight = class_weight
        self.group_weight = group_weight

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of images (B, 3, H, W) in [0, 1] of classes `labels` (B,)."""
        return self.of_features(self.encode(images), labels)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """φ in the prototypes' precision, whatever the generator's: half precision would lose small gradients."""
        return self.encoder(images.to(self.prototypes.classes.dtype))

    def of_features(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of features (B, D)."""
        to_class = torch.linalg.vector_norm(features - self.prototypes.classes[labels], dim=-1)
        nearest = self.prototypes.groups[labels, self.nearest_group(features, labels)]
        to_group = torch.linalg.vector_norm(features - nearest, dim=-1)
        return self.class_weight * to_class + self.group_weight * to_group

    def nearest_group(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """j* (B,): the group of each image's own class with the largest cosine similarity."""
        groups = self.prototypes.groups[labels]
        cosine = torch.einsum("bd,bkd->bk", F.normalize(features.detach(), dim=-1), groups)
        return cosine.masked_fill(~self.prototypes.present[labels], -torch.inf).argmax(-1)
