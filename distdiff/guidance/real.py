"""The real images of each class, for guidance methods that compare new images with them."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional as F

from distdiff.energy.base import PlannedImage
from distdiff.generator.latents import Latents
from distdiff.generator.noise import image_seed
from distdiff.prototypes.exemplars import Exemplars


class RealImages:
    """The real images of each class, in an order that the seed and the images' keys alone decide.

    Images are named by their index among all real images, and `keys[i]` is the key of image i within its class.
    """

    def __init__(self, labels: np.ndarray, keys: Sequence[str]) -> None:
        self.labels = labels
        self.keys = keys
        self._orders: dict[tuple[int, int], tuple[list[int], dict[str, int]]] = {}

    def order(self, image: PlannedImage, seed: int) -> list[int]:
        """The images of the new image's class, in the order of random numbers that `seed` and their keys decide."""
        return self._of(image, seed)[0]

    def rank(self, image: PlannedImage, seed: int) -> int:
        """The place of the new image's source in `order`; a random number if the source is not among the real images."""
        known = self._of(image, seed)[1]
        if image.source in known:
            return known[image.source]
        return image_seed(seed, image.class_name, image.source, "real", "order")

    def others(self, image: PlannedImage, seed: int, most: int) -> list[int]:
        """The first `most` images of `order` without the source; the source itself if the class has no other image."""
        order = self.order(image, seed)
        others = [number for number in order[:most] if self.keys[number] != image.source]
        return others or order[most : most + 1] or order[:1]

    def _of(self, image: PlannedImage, seed: int) -> tuple[list[int], dict[str, int]]:
        if (image.label, seed) not in self._orders:
            found = np.flatnonzero(self.labels == image.label).tolist()
            drawn = {number: image_seed(seed, image.class_name, self.keys[number], "real", "order") for number in found}
            ordered = sorted(found, key=drawn.__getitem__)
            self._orders[image.label, seed] = ordered, {self.keys[number]: i for i, number in enumerate(ordered)}
        return self._orders[image.label, seed]


class RealFeatures(RealImages):
    """The real images with their features (n, D) under φ, of unit length; they are of `num_classes` classes or fewer."""

    def __init__(self, exemplars: Exemplars, num_classes: int) -> None:
        super().__init__(exemplars.labels, exemplars.keys)
        self.features = exemplars.features
        self.num_classes = num_classes

    @cached_property
    def class_means(self) -> torch.Tensor:
        """The mean features of each class, normalised again, (classes, D); zero for a class without images."""
        labels = torch.from_numpy(self.labels)
        means = [self.features[labels == label].mean(0) for label in range(self.num_classes)]
        return F.normalize(torch.stack(means).nan_to_num(), dim=-1)

    @cached_property
    def has_images(self) -> torch.Tensor:
        """Whether there are real images of each class, (classes,)."""
        return torch.from_numpy(np.bincount(self.labels, minlength=self.num_classes) > 0)


class RealLatents(RealImages):
    """The real images with the autoencoder's posteriors."""

    def __init__(self, latents: Latents, labels: np.ndarray, keys: Sequence[str]) -> None:
        super().__init__(labels, keys)
        self._latents = latents

    def means(self, numbers: Sequence[int]) -> torch.Tensor:
        """The means (n, C, h, w) of the posteriors of the images with these numbers, on the CPU."""
        return self._latents.select(torch.tensor(list(numbers))).mean
