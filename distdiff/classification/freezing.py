"""A frozen backbone, of which a classifier trains only the head."""

from collections.abc import Callable
from typing import Self

import torch
from torch import nn


class FrozenBackbone(nn.Module):
    """A pretrained network that training leaves alone, the statistics of its batch normalisation included.

    The network is no submodule: an optimizer does not see its weights, a saved classifier does not repeat them, and it
    stays in evaluation mode. It follows this module to another device or precision.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._held = [network.eval().requires_grad_(False)]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._held[0](inputs)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        self._held[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)
