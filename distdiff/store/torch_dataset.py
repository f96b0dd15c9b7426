"""An expanded dataset for your own training loop."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from distdiff.data.images import LabelledImages
from distdiff.data.pixels import to_tensor


class ExpandedImages(Dataset):
    """Pairs (image, target) for the images of an expanded dataset, in the order of the dataset's metadata rows.

    An image is a tensor (3, H, W), float32 in [0, 1]. If `transform` is given, an image is instead the result of
    `transform` for the RGB PIL image. A target is the index of the image's class in `class_names`. If any of the images
    has a soft label, all targets are instead probabilities, (classes,) float32, which
    `torch.nn.functional.cross_entropy` accepts.
    """

    def __init__(self, images: LabelledImages, transform: Callable[[Image.Image], Any] | None = None) -> None:
        self.images = images
        self.transform = transform or to_tensor

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.images.class_names

    @property
    def is_soft(self) -> bool:
        """Whether targets are probabilities, not class indices."""
        return self.images.soft is not None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int | torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        position = index % len(self)
        return self.transform(self.images.image(position)), self._target(position)

    def _target(self, position: int) -> int | torch.Tensor:
        if self.images.soft is not None:
            return self.images.soft.target(position, len(self.class_names))
        return int(self.images.labels[position])
