"""Augmentation policies, built from kornia.

Each policy is a module that maps images (B, 3, H, W) in [0, 1] to images of the same shape and range. The policies that
mix the images of a batch are in `mixing.py`.
"""

from typing import Annotated

import kornia.augmentation as K
from torch import nn

from distdiff.keys import Limits

# What kornia allows; tests/config/test_library_bounds.py asks it.
NumOps = Annotated[int, Limits(at_least=1, at_most=15)]  # operations are drawn without replacement, and there are 15
Magnitude = Annotated[int, Limits(at_least=1, at_most=29)]  # kornia allows neither 0 nor 30
Degrees = Annotated[float, Limits(at_least=0, at_most=360)]


def none() -> nn.Module:
    """Leaves images as they are."""
    return nn.Identity()


def default(*, horizontal_flip: bool) -> nn.Module:
    """Pad-and-crop (He et al., 2016), which shifts images by up to 1/8 of a side and pads them with zeros.

    If `horizontal_flip`, images are also mirrored at random.
    """
    return nn.Sequential(K.RandomAffine(0.0, translate=(0.125, 0.125)), *_flip(horizontal_flip))


def affine(*, horizontal_flip: bool) -> nn.Module:
    """Small random rotations, shifts, zooms and changes of brightness and contrast.

    If `horizontal_flip`, images are also mirrored at random.
    """
    return nn.Sequential(
        K.RandomAffine(10.0, translate=(0.1, 0.1), scale=(0.9, 1.1), p=0.8),
        K.RandomBrightness((0.85, 1.15), p=0.3),
        K.RandomContrast((0.85, 1.15), p=0.3),
        *_flip(horizontal_flip),
    )


def rotate(*, degrees: Degrees, horizontal_flip: bool) -> nn.Module:
    """Rotations by a random angle of up to `degrees` to either side; the corners become black.

    If `horizontal_flip`, images are also mirrored at random.
    """
    return nn.Sequential(K.RandomRotation(degrees), *_flip(horizontal_flip))


def randaugment(*, num_ops: NumOps, magnitude: Magnitude) -> nn.Module:
    """RandAugment (Cubuk et al., 2020), with `num_ops` random operations of strength `magnitude`."""
    return K.auto.RandAugment(n=num_ops, m=magnitude)


def _flip(allowed: bool) -> list[nn.Module]:
    return [K.RandomHorizontalFlip()] if allowed else []
