"""What an energy is: a number for each image that guidance lowers, from the image's features.

To add one: a file here with a subclass of `Energy`, and a YAML file in `conf/energy` that names it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn


class PlannedImage(Protocol):
    """One image to make: its class, the key of the source it is made from, and which copy of it this is."""

    label: int
    class_name: str
    source: str
    copy: int


class Energy(nn.Module, ABC):
    """E(f, t): energies (B,) of features f (B, D), differentiable in them, given a target t for each image.

    What an energy needs of the real data are the positional arguments of its constructor, by name: `prototypes`
    (`Prototypes`), `exemplars` (`Exemplars`). Whoever assembles it brings just those. Its keyword-only arguments are its
    keys in `conf/energy`.
    """

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The precision of what features are compared with."""

    @abstractmethod
    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of features (B, D), each against its target, (B,) int64."""

    def targets(self, images: Sequence[PlannedImage], seed: int) -> torch.Tensor:
        """What each image is compared with, (B,) int64: by default its class.

        A target depends on `seed` and on the image itself, never on what else is in the batch.
        """
        return torch.tensor([image.label for image in images])

    def columns(self, features: torch.Tensor, targets: torch.Tensor) -> dict[str, list]:
        """What the metadata say of each image beside its energy: columns of B plain values."""
        return {}
