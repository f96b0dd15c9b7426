"""The `prototype` keys."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from distdiff.keys import Group, key


@dataclass
class PrototypeKeys:
    name: str = MISSING
    num_groups: Any = key(at_least=1, words=("auto",))  # K; auto chooses K by silhouette for each class
    max_groups: int = key(at_least=2)  # the largest K that auto tries
    linkage: str = key(choices=("average", "complete", "single", "ward"))
    max_clustered: int = key(at_least=100)  # of a class with more images, this many are clustered
    class_level: bool = True
    group_level: bool = True


PROTOTYPE = Group(
    "prototype",
    PrototypeKeys,
    also_called={"n_clusters": "prototype.num_groups", "num_clusters": "prototype.num_groups"},
)
