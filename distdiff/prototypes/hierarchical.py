"""Hierarchical prototypes, which summarise the real images of each class, and the groups within each class."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from distdiff.errors import UserError
from distdiff.prototypes.clustering import AUTO, group, mean_direction, mean_directions

FORMAT = 1  # increase when older versions of `load` cannot read what `save` writes
HEADER = "distdiff"


@dataclass(frozen=True)
class Prototypes:
    """Unit vectors that summarise the classes (Zhu et al., 2024, section 3.2).

    - `classes` (Y, D): the normalised mean of each class.
    - `groups` (Y, K, D): the normalised mean of each group of each class. The row of a group that a class lacks
      is zero.
    - `counts` (Y, K) int64: the number of images in each group.
    - `metadata`: how the prototypes were made, as plain values.

    If the class level is off, `classes` is (0, D). If the group level is off, K is 0.
    """

    classes: torch.Tensor
    groups: torch.Tensor
    counts: torch.Tensor
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def present(self) -> torch.Tensor:
        """Whether each class has each of the K groups, (Y, K) bool. Some classes may have fewer than K groups."""
        return self.counts > 0

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Prototypes":
        return replace(
            self,
            classes=self.classes.to(device, dtype),
            groups=self.groups.to(device, dtype),
            counts=self.counts.to(device),
        )

    def described(self, **facts: Any) -> "Prototypes":
        """These prototypes with `facts`, such as the class names, added to their metadata."""
        return replace(self, metadata=self.metadata | facts)

    def save(self, path: Path) -> None:
        """Writes the tensors as a safetensors file, with the metadata as JSON in the file's header."""
        tensors = {"classes": self.classes, "groups": self.groups, "counts": self.counts}
        header = {HEADER: json.dumps({"format": FORMAT} | self.metadata)}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, header)

    @classmethod
    def load(cls, path: Path) -> "Prototypes":
        """Reads a file that `save` wrote.

        Raises a `UserError` that names `path` if the file is incomplete or of another kind.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {})[HEADER])
                if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
                    raise ValueError(f"it is not of format {FORMAT}")
                return cls(*(file.get_tensor(name) for name in ("classes", "groups", "counts")), metadata)
        except KeyError:
            reason = "its header has no metadata of DistDiff"
        except (OSError, SafetensorError, ValueError) as error:
            reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} is no complete prototypes file ({reason}): remove it, or the cached stage that holds it, to make it again"
        )


def fit_prototypes(
    features: torch.Tensor,
    labels: np.ndarray,
    num_classes: int,
    num_groups: int | Literal["auto"],
    linkage: str,
    *,
    max_groups: int = 10,
    max_clustered: int = 5000,
    class_level: bool = True,
    group_level: bool = True,
    seed: int = 0,
) -> Prototypes:
    """Prototypes of labelled features, by agglomerative clustering within each class (Zhu et al., 2024, section 3.2).

    features: (n, D), of unit length; labels: (n,), 0 to num_classes - 1. A class with fewer than `num_groups` images
    gets as many groups as it has images. If `num_groups` is `"auto"`, the number of groups of each class is chosen by
    silhouette, up to `max_groups`, and K is the largest of these numbers.

    If a class has more than `max_clustered` images, `max_clustered` of its images are drawn with `seed` and the class
    label, and only these are clustered. The other images join the nearest group, and then the mean of each group is
    computed (see `clustering.group`). `metadata["reduced_classes"]` lists the labels of such classes.

    If `class_level` or `group_level` is False, this level has no prototypes, and the energy lacks the term of this
    level. Raises `UserError` for an empty class.
    """
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(num_classes + 1))
    sizes = np.diff(bounds)
    if (sizes == 0).any():
        raise UserError(
            f"class number {sizes.argmin()} has no training image, so it has no prototype: remove the class or give it an image"
        )
    classes, groups, counts = [], [], []
    for label in range(num_classes):
        members = features[torch.from_numpy(order[bounds[label] : bounds[label + 1]])]
        classes.append(mean_direction(members))
        if group_level:
            assignment = group(members, num_groups, max_groups, linkage, max_clustered, (seed, label))
            groups.append(mean_directions(members, assignment))
            counts.append(torch.from_numpy(np.bincount(assignment)))
    class_means = torch.stack(classes)[: None if class_level else 0]
    if not group_level:
        empty = class_means.new_zeros(num_classes, 0, features.shape[1])
        return Prototypes(class_means, empty, torch.zeros(num_classes, 0, dtype=torch.int64), {"num_groups": 0})
    width = max(map(len, groups)) if num_groups == AUTO else num_groups
    metadata = {"num_groups": num_groups, "linkage": linkage, "max_clustered": max_clustered}
    metadata["reduced_classes"] = [] if num_groups == 1 else np.flatnonzero(sizes > max_clustered).tolist()
    if num_groups == AUTO:
        metadata["max_groups"] = max_groups
    if metadata["reduced_classes"]:
        metadata["seed"] = seed
    return Prototypes(class_means, _stack(groups, width), _stack(counts, width), metadata)


def _stack(rows: list[torch.Tensor], width: int) -> torch.Tensor:
    """Stacks Y tensors (k, ...), each with k at most `width`, into one (Y, width, ...), padded with zeros."""
    stacked = rows[0].new_zeros(len(rows), width, *rows[0].shape[1:])
    for target, row in zip(stacked, rows, strict=True):
        target[: len(row)] = row
    return stacked
