"""The base of energies. An energy is a number that is computed from an image's features, and guidance lowers it.

To add an energy, add a file here with a subclass of `Energy`, and a YAML file in `conf/energy` that names the subclass.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn


class PlannedImage(Protocol):
    """One image to make, with its class, the key of its source, and its number among the copies of that source."""

    label: int
    class_name: str
    source: str
    copy: int


class Energy(nn.Module, ABC):
    """E(f, t): energies (B,) of features f (B, D), differentiable in f, given a target t for each image.

    The names of the positional arguments of a subclass's constructor say what the subclass needs from the real data:
    `prototypes` (`Prototypes`) or `exemplars` (`Exemplars`). Nothing else is computed from the real data. The
    keyword-only arguments are the keys in `conf/energy`.
    """

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of the prototypes or exemplars that features are compared with."""

    @abstractmethod
    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of features (B, D), where `targets` (B,) int64 holds each image's target."""

    def targets(self, images: Sequence[PlannedImage], seed: int) -> torch.Tensor:
        """The index (B,) int64 of each image's target, with which the image's features are compared.

        By default the target is the image's class label. A target depends on `seed` and on the image itself, never on
        the rest of the batch.
        """
        return torch.tensor([image.label for image in images])

    def columns(self, features: torch.Tensor, targets: torch.Tensor) -> dict[str, list]:
        """Columns of the metadata, besides the energy, each with B plain values, one for each image."""
        return {}
