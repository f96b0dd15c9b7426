"""The hierarchical energy, the weighted distances of features from a class prototype and from a group prototype."""

import torch
from torch.nn import functional as F

from distdiff.energy.base import Energy
from distdiff.keys import NonNegative
from distdiff.prototypes.hierarchical import Prototypes


class HierarchicalEnergy(Energy):
    """E(f, y) = λ_c ‖f − p_c[y]‖ + λ_g ‖f − p_g[y][j*]‖ (Zhu et al., 2024, eq. 5-7).

    j* is the group of class y whose prototype is nearest to f by cosine. λ_c is `class_weight` and λ_g is
    `group_weight`. Takes features (B, D) and labels (B,), and returns energies (B,), which are differentiable in the
    features. `classes` (Y, D), `groups` (Y, K, D) and `present` (Y, K) bool are those of `Prototypes`. If there
    are no class prototypes or no group prototypes, the energy lacks the term of those prototypes.
    """

    def __init__(self, prototypes: Prototypes, *, class_weight: NonNegative, group_weight: NonNegative) -> None:
        super().__init__()
        self.register_buffer("classes", prototypes.classes, persistent=False)
        self.register_buffer("groups", prototypes.groups, persistent=False)
        self.register_buffer("present", prototypes.present, persistent=False)
        self.class_weight = class_weight
        self.group_weight = group_weight

    @property
    def dtype(self) -> torch.dtype:
        return self.groups.dtype

    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of features (B, D) for the classes `targets` (B,)."""
        terms = []
        if len(self.classes):
            terms.append(self.class_weight * torch.linalg.vector_norm(features - self.classes[targets], dim=-1))
        if self.groups.shape[1]:
            nearest = self.groups[targets, self.nearest_group(features, targets)]
            terms.append(self.group_weight * torch.linalg.vector_norm(features - nearest, dim=-1))
        return sum(terms[1:], terms[0])

    def nearest_group(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """j* (B,): for each image, the index of the group of its class most similar to its features by cosine."""
        cosine = torch.einsum("bd,bkd->bk", F.normalize(features.detach(), dim=-1), self.groups[labels])
        return cosine.masked_fill(~self.present[labels], -torch.inf).argmax(-1)

    def columns(self, features: torch.Tensor, targets: torch.Tensor) -> dict[str, list]:
        """The column `group`, which has the index of each image's nearest group.

        There is no such column if the prototypes have no groups.
        """
        return {"group": self.nearest_group(features, targets).tolist()} if self.groups.shape[1] else {}
