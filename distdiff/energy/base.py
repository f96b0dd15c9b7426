"""The base of energies; an energy is a number for each image, computed from its features, which guidance lowers.

To add one, add a file here with a subclass of `Energy`, and a YAML file in `conf/energy` that names it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn


class PlannedImage(Protocol):
    """One image to make: its class, the key of its source, and its number among the source's copies."""

    label: int
    class_name: str
    source: str
    copy: int


class Energy(nn.Module, ABC):
    """E(f, t): energies (B,) of features f (B, D), differentiable in them, given a target t for each image.

    The positional arguments of its constructor name what it needs from the real data: `prototypes` (`Prototypes`) or
    `exemplars` (`Exemplars`); only those are computed. Its keyword-only arguments are its keys in `conf/energy`.
    """

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of the prototypes or exemplars that features are compared with."""

    @abstractmethod
    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of features (B, D), each against its target, (B,) int64."""

    def targets(self, images: Sequence[PlannedImage], seed: int) -> torch.Tensor:
        """The number of what each image is compared with, (B,) int64; by default its class.

        A target depends on `seed` and on the image itself, never on the rest of the batch.
        """
        return torch.tensor([image.label for image in images])

    def columns(self, features: torch.Tensor, targets: torch.Tensor) -> dict[str, list]:
        """Further columns of the metadata beside the energy, each with B plain values."""
        return {}
