"""The base of energies; an energy is a number that is computed from the features of an image and that guidance lowers.

To add an energy, add a file here with a subclass of `Energy`, and a YAML file in `conf/energy` that names the subclass.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn


class PlannedImage(Protocol):
    """One image to make: its class, the key of its source, and its index among the copies of that source."""

    label: int
    class_name: str
    source: str
    copy: int


class Energy(nn.Module, ABC):
    """E(f, t): energies (B,) of features f (B, D), differentiable in f, given a target t for each image.

    The positional arguments of a subclass's constructor name what it needs from the real data: `prototypes`
    (`Prototypes`) or `exemplars` (`Exemplars`). Only what they name is computed. The keyword-only arguments are the
    keys in `conf/energy`.
    """

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of the prototypes or exemplars that features are compared with."""

    @abstractmethod
    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of features (B, D), each against its target, (B,) int64."""

    def targets(self, images: Sequence[PlannedImage], seed: int) -> torch.Tensor:
        """The index of each image's target, that is, of what it is compared with, (B,) int64; by default its class label.

        A target depends on `seed` and on the image itself, never on the rest of the batch.
        """
        return torch.tensor([image.label for image in images])

    def columns(self, features: torch.Tensor, targets: torch.Tensor) -> dict[str, list]:
        """Further columns of the metadata beside the energy, each with B plain values."""
        return {}
