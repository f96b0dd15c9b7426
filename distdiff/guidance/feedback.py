"""Feedback guidance: new images are ones that a classifier is unsure about (Askari-Hemmat et al., 2024)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from distdiff.energy.base import PlannedImage
from distdiff.guidance.batch import Aims, GuidedBatch
from distdiff.guidance.classifying import entropy, log_probabilities
from distdiff.guidance.real import RealFeatures
from distdiff.guidance.relative import RelativeSteps


class Feedback(RelativeSteps):
    """Raises the entropy of the classifier's prediction, or its loss for the image's class (`criterion`).

    The classifier is the guide, or the nearest class mean of another encoder's features (`log_probabilities`).
    """

    def __init__(self, real_features: RealFeatures, *, criterion: Literal["entropy", "loss"], **keys: Any) -> None:
        super().__init__(**keys)
        self.real = real_features
        self.criterion = criterion

    def aims(self, images: Sequence[PlannedImage], seed: int) -> Aims:
        """The class of each image."""
        return Aims(torch.tensor([image.label for image in images]))

    def objective(self, raw: torch.Tensor, batch: GuidedBatch) -> torch.Tensor:
        log_p = log_probabilities(raw, batch.image_energy.encoder, self.real)
        if self.criterion == "entropy":
            return -entropy(log_p)
        return log_p.gather(1, batch.aims[:, None])[:, 0]
