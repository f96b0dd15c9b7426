"""The exemplar energy, which is the distance of an image's features from those of one real image of its class."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from distdiff.energy.base import Energy, PlannedImage
from distdiff.generator.noise import image_seed
from distdiff.prototypes.exemplars import Exemplars


class ExemplarEnergy(Energy):
    """E(f, e) = ‖f − φ(x_e)‖, where the exemplar x_e is a real image of the same class.

    For each copy, an exemplar is drawn at random with the copy's own seed. The exemplar is never the copy's own source,
    unless the class has no other image. Exemplars are drawn with replacement and independently for each copy, so a
    larger expansion factor leaves the exemplars of earlier copies unchanged.
    """

    def __init__(self, exemplars: Exemplars) -> None:
        super().__init__()
        self.exemplars = exemplars
        self.register_buffer("features", exemplars.features, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        return self.features.dtype

    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Energies (B,) of features (B, D), where `targets` (B,) holds the index of each image's exemplar."""
        return torch.linalg.vector_norm(features - self.features[targets], dim=-1)

    def targets(self, images: Sequence[PlannedImage], seed: int) -> torch.Tensor:
        """The index (B,) of each image's exemplar among all real images."""
        return torch.tensor([self._target(image, seed) for image in images])

    def columns(self, features: torch.Tensor, targets: torch.Tensor) -> dict[str, list]:
        """The column `exemplar`, which has the key of each image's exemplar."""
        return {"exemplar": [self.exemplars.keys[target] for target in targets.tolist()]}

    def _target(self, image: PlannedImage, seed: int) -> int:
        others = [number for number in self._of_class[image.label] if self.exemplars.keys[number] != image.source]
        candidates = others or self._of_class[image.label]
        drawn = image_seed(seed, image.class_name, image.source, image.copy, "exemplar")
        return candidates[drawn % len(candidates)]

    @cached_property
    def _of_class(self) -> dict[int, list[int]]:
        labels = self.exemplars.labels
        return {int(label): np.flatnonzero(labels == label).tolist() for label in np.unique(labels)}
