"""Hierarchical prototypes: what the real data of a class look like, at class level and at group level."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.cluster import AgglomerativeClustering
from torch.nn import functional as F

from distdiff.errors import UserError


@dataclass(frozen=True)
class Prototypes:
    """Unit vectors that summarise the classes (Zhu et al., 2024, section 3.2).

    classes: (Y, D), the normalised mean of each class; groups: (Y, K, D), of each group inside it;
    present: (Y, K) bool, False where a class has fewer than K groups.
    """

    classes: torch.Tensor
    groups: torch.Tensor
    present: torch.Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Prototypes":
        return Prototypes(self.classes.to(device, dtype), self.groups.to(device, dtype), self.present.to(device))

    def save(self, path: Path, metadata: dict[str, object]) -> None:
        tensors = {"classes": self.classes, "groups": self.groups, "present": self.present}
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"distdiff": json.dumps(metadata)}
        )

    @classmethod
    def load(cls, path: Path) -> "Prototypes":
        with safe_open(path, framework="pt") as file:
            return cls(**{name: file.get_tensor(name) for name in ("classes", "groups", "present")})


def fit_prototypes(
    features: torch.Tensor, labels: np.ndarray, num_classes: int, num_groups: int, linkage: str
) -> Prototypes:
    """Prototypes of unit features (n, D) with labels (n,), by agglomerative clustering inside each class.

    A class with fewer than `num_groups` images gets as many groups as it has images; an empty class is a `UserError`.
    """
    classes, groups = [], []
    present = torch.zeros(num_classes, num_groups, dtype=torch.bool)
    for label in range(num_classes):
        members = features[torch.from_numpy(np.flatnonzero(labels == label))]
        if len(members) == 0:
            raise UserError(
                f"class number {label} has no training image, so it has no prototype: remove it or give it one"
            )
        assignment = cluster(members, min(num_groups, len(members)), linkage)
        classes.append(_mean_direction(members))
        means = [_mean_direction(members[assignment == group]) for group in range(assignment.max() + 1)]
        present[label, : len(means)] = True
        groups.append(torch.stack(means + [torch.zeros_like(means[0])] * (num_groups - len(means))))
    return Prototypes(torch.stack(classes), torch.stack(groups), present)


def cluster(features: torch.Tensor, num_groups: int, linkage: str) -> np.ndarray:
    """Group numbers (n,) from agglomerative clustering of (n, D) by Euclidean distance."""
    if num_groups == 1:
        return np.zeros(len(features), dtype=np.int64)
    return AgglomerativeClustering(num_groups, linkage=linkage).fit_predict(features.double().cpu().numpy())


def _mean_direction(features: torch.Tensor) -> torch.Tensor:
    return F.normalize(features.mean(0), dim=0)
