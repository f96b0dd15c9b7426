"""Conversions between arrays, tensors and PIL images."""

import numpy as np
import torch
from PIL import Image


def to_floats(square: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(square).permute(2, 0, 1).float().div_(255)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """RGB PIL image -> (3, H, W) float32 in [0, 1]."""
    return to_floats(np.asarray(image, dtype=np.uint8).copy())


def to_image(pixels: torch.Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] -> RGB PIL image, rounded to the nearest level from 0 to 255."""
    (image,) = to_images(pixels[None])
    return image


def to_images(pixels: torch.Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [0, 1] -> RGB PIL images, as `to_image`; copied from the device all at once."""
    levels = pixels.detach().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
    return [Image.fromarray(square) for square in levels.numpy()]
