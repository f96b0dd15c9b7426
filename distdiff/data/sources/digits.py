"""scikit-learn's handwritten digits (Alpaydin & Kaynak, UCI 1998): 1,797 scans of 8x8 pixels in 17 grey levels."""

from functools import cache

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.splits.carving import split_three_ways

NUM_TEST, NUM_VALIDATION = 600, 400
SIDE = 32


def load(*, name: str, split_seed: int) -> DatasetSplits:
    """The digits as RGB images of 32x32 pixels, light on dark.

    There are 600 test, 400 validation and 797 training images.
    """
    grey, labels = _scans()

    def read(index: int) -> Image.Image:
        return Image.fromarray(grey[index]).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")

    everything = LabelledImages(
        name=name,
        class_names=tuple(str(digit) for digit in range(10)),
        labels=labels.copy(),
        keys=tuple(f"{index:04d}" for index in range(len(grey))),
        read=read,
        indices=np.arange(len(grey)),
    )
    return split_three_ways(everything, NUM_VALIDATION, NUM_TEST, split_seed)


@cache  # the jobs of a sweep load them again and again
def _scans() -> tuple[np.ndarray, np.ndarray]:
    """All scans (1797, 8, 8), 8 bits a pixel, and their digits (1797,). They must not be changed."""
    digits = load_digits()
    grey, labels = np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.int64)
    return grey, labels
