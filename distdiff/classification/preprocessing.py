"""Differentiable resizing and normalisation of square images for a network."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from distdiff.constants import constant

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Resizes the whole image to (input_size, input_size) with antialiasing, then computes (x - mean) / std by channel.

    Takes images (B, 3, H, W) in [0, 1] and returns (B, 3, input_size, input_size). `resample` is the filter, bilinear
    or bicubic.
    """

    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: str = "bilinear"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        size = (self.input_size, self.input_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode=self.resample, antialias=True)
        mean, std = (constant(tuple(of), images.device, images.dtype).view(3, 1, 1) for of in (self.mean, self.std))
        return (images - mean) / std
