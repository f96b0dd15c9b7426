"""MixUp and CutMix: augmentations that mix the images and the labels of a batch."""

import math
from abc import ABC, abstractmethod

import torch
from torch import nn

from distdiff.classification.augmentations import default
from distdiff.keys import Positive


class BatchMixing(nn.Module, ABC):
    """Mixes each image (B, 3, H, W) and its class probabilities (B, classes) with another image of the batch.

    A batch has one weight, λ ~ Beta(α, α), as published. Images are augmented one by one before they are mixed.
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
        """(mixed images, share of `images` in them), where the share is `weight` or close to it."""


class MixUp(BatchMixing):
    """λ x_i + (1 − λ) x_j (Zhang et al., 2018)."""

    def mixed(self, images, partners, weight):
        return weight * images + (1 - weight) * partners, weight


class CutMix(BatchMixing):
    """Pastes a rectangle of 1 − λ of the area from x_j; if the border clips it, λ is adjusted (Yun et al., 2019)."""

    def mixed(self, images, partners, weight):
        height, width = images.shape[-2:]
        half = math.sqrt(1 - weight) / 2
        row, column = torch.randint(height, ()).item(), torch.randint(width, ()).item()
        top, bottom = (min(max(round(row + sign * half * height), 0), height) for sign in (-1, 1))
        left, right = (min(max(round(column + sign * half * width), 0), width) for sign in (-1, 1))
        images = images.clone()
        images[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
        return images, 1 - (bottom - top) * (right - left) / (height * width)


def mixup(*, alpha: Positive, horizontal_flip: bool) -> nn.Module:
    """MixUp after the default augmentation."""
    return MixUp(alpha, default(horizontal_flip=horizontal_flip))


def cutmix(*, alpha: Positive, horizontal_flip: bool) -> nn.Module:
    """CutMix after the default augmentation."""
    return CutMix(alpha, default(horizontal_flip=horizontal_flip))
