"""The base of encoders φ. φ is a frozen, differentiable function, with which prototypes and energies are computed."""

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import nn
from torch.nn import functional as F

from distdiff.classification.preprocessing import Preprocessing


class Encoder(nn.Module, ABC):
    """φ(x): L2-normalised features (B, D) of images (B, 3, H, W) in [0, 1], for any H and W.

    φ is frozen and always in evaluation mode, but differentiable in x. φ works in float32 and float64. This class
    resizes and normalises the images. A subclass implements `extract`, which computes the network's features of the
    resulting images.
    """

    def __init__(self, network: nn.Module, preprocess: Preprocessing, feature_dim: int) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.feature_dim = feature_dim

    @abstractmethod
    def extract(self, inputs: torch.Tensor) -> torch.Tensor:
        """Features (B, D) of images (B, 3, input_size, input_size) that are normalised as the network expects."""

    @property
    def input_size(self) -> int:
        return self.preprocess.input_size

    @property
    def device(self) -> torch.device:
        """Where φ computes."""
        return next(self.parameters()).device

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.features(images), dim=-1)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B, D), not normalised to unit length, of images (B, 3, H, W) in [0, 1]."""
        return self.extract(self.preprocess(images))

    def train(self, mode: bool = True) -> Self:
        """Ignores `mode` and stays in evaluation mode, since dropout or batch statistics would change φ."""
        return super().train(False)
