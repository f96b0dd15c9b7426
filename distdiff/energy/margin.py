"""The margin energy: zero for images that features place in their class, so that only the others are guided."""

import torch
from torch.nn import functional as F

from distdiff.energy.hierarchical import HierarchicalEnergy
from distdiff.errors import UserError
from distdiff.keys import NonNegative
from distdiff.prototypes.hierarchical import Prototypes


class MarginEnergy(HierarchicalEnergy):
    """E(f, y) = λ_c max(0, m + d_c(y) − min d_c(other)) + λ_g max(0, m + d_g(y) − min d_g(other)), the triplet loss.

    (Schroff et al., 2015, arXiv 1503.03832, with distances that are not squared.) d_c(y) is the distance of the features f
    from the prototype of class y, and d_g(y) that from its nearest group prototype; the minima are over all other classes. m
    is `margin`. An image that is nearer to its own prototypes by m has no energy and no gradient: guidance leaves its variety
    alone. Takes features (B, D) and labels (B,), and returns energies (B,). Raises `UserError` for a single class.
    """

    def __init__(
        self, prototypes: Prototypes, *, class_weight: NonNegative, group_weight: NonNegative, margin: NonNegative
    ) -> None:
        super().__init__(prototypes, class_weight=class_weight, group_weight=group_weight)
        self.margin = margin
        if len(self.groups) < 2:
            raise UserError("energy=margin is not allowed: it compares classes, and this dataset has only one")

    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of features (B, D) for the classes `targets` (B,)."""
        terms = []
        if len(self.classes):
            distances = torch.linalg.vector_norm(features[:, None] - self.classes, dim=-1)
            terms.append(self.class_weight * self._excess(distances, targets))
        if self.groups.shape[1]:
            distances = torch.linalg.vector_norm(features[:, None, None] - self.groups, dim=-1)
            nearest = distances.masked_fill(~self.present, torch.inf).amin(-1)
            terms.append(self.group_weight * self._excess(nearest, targets))
        return sum(terms[1:], terms[0])

    def _excess(self, distances: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """By how much (B,) each image's own class lacks the margin to the nearest other one, of distances (B, Y)."""
        own = distances.gather(1, targets[:, None]).squeeze(1)
        is_own = F.one_hot(targets, distances.shape[1]).bool()
        return F.relu(self.margin + own - distances.masked_fill(is_own, torch.inf).amin(1))
