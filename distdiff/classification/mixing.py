"""MixUp and CutMix: augmentations that mix the images and the labels of a batch."""

import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
from torch import nn

from distdiff.classification.augmentations import default
from distdiff.keys import Limits

# torch draws from Beta(α, α) in float32: a smaller α gives 1/2 instead of 0 or 1, and a larger one is infinite.
Concentration = Annotated[float, Limits(at_least=0.01, at_most=1e30)]


class BatchMixing(nn.Module, ABC):
    """Mixes images (B, 3, H, W) and their class probabilities (B, classes) with those of random partners in the batch.

    As published, one weight λ ~ Beta(α, α) is drawn for the whole batch. Each image is augmented before it is mixed.
    """

    def __init__(self, alpha: float, augmentation: nn.Module) -> None:
        super().__init__()
        self.alpha = alpha
        self.augmentation = augmentation

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = self.augmentation(images)
        weight = torch.distributions.Beta(self.alpha, self.alpha).sample().item()
        partners = torch.randperm(len(images), device=images.device)
        images, weight = self.mixed(images, images[partners], weight)
        return images, weight * targets + (1 - weight) * targets[partners]

    @abstractmethod
    def mixed(self, images: torch.Tensor, partners: torch.Tensor, weight: float) -> tuple[torch.Tensor, float]:
        """Mixes `images` with `partners` (B, 3, H, W); returns the mixed images and the share of `images` in them.

        The wanted share is `weight`. The returned share may differ from it, as in CutMix.
        """


class MixUp(BatchMixing):
    """Mixes image x_i with image x_j to λ x_i + (1 − λ) x_j (Zhang et al., 2018)."""

    def mixed(self, images, partners, weight):
        return weight * images + (1 - weight) * partners, weight


class CutMix(BatchMixing):
    """Pastes a rectangle of image x_j, with a share 1 − λ of the area, into image x_i (Yun et al., 2019).

    If the border of the image clips the rectangle, λ is adjusted to the area that is left.
    """

    def mixed(self, images, partners, weight):
        height, width = images.shape[-2:]
        half = math.sqrt(1 - weight) / 2
        row, column = torch.randint(height, ()).item(), torch.randint(width, ()).item()
        top, bottom = (min(max(round(row + sign * half * height), 0), height) for sign in (-1, 1))
        left, right = (min(max(round(column + sign * half * width), 0), width) for sign in (-1, 1))
        images = images.clone()
        images[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
        return images, 1 - (bottom - top) * (right - left) / (height * width)


def mixup(*, alpha: Concentration, horizontal_flip: bool) -> nn.Module:
    """MixUp after the default augmentation."""
    return MixUp(alpha, default(horizontal_flip=horizontal_flip))


def cutmix(*, alpha: Concentration, horizontal_flip: bool) -> nn.Module:
    """CutMix after the default augmentation."""
    return CutMix(alpha, default(horizontal_flip=horizontal_flip))
