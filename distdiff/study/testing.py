"""Tests a classifier and notes which images it labels rightly."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from distdiff.classification.networks import ImageClassifier
from distdiff.classification.training import ClassifierTrainer
from distdiff.data.images import LabelledImages
from distdiff.ranks.world import world


@dataclass(frozen=True)
class Outcome:
    """The fraction of images that are labelled rightly, and for each image whether it is, (n,) bool.

    `scores` are further numbers by name, which the study reports beside the accuracy.
    """

    accuracy: float
    correct: np.ndarray
    scores: dict[str, float] = field(default_factory=dict)


def outcome_of(
    classifiers: ClassifierTrainer, classifier: ImageClassifier, images: LabelledImages, fit: str
) -> Outcome:
    """Tests `classifier` on `images`, by the leading rank. All ranks get the result."""
    return world().once(lambda: _outcome_of(classifiers, classifier, images, fit))


def _outcome_of(
    classifiers: ClassifierTrainer, classifier: ImageClassifier, images: LabelledImages, fit: str
) -> Outcome:
    predicted: list[torch.Tensor] = []

    def note(_: nn.Module, __: object, logits: torch.Tensor) -> None:
        predicted.append(logits.argmax(-1).cpu())

    noting = classifier.register_forward_hook(note)  # the images are tested in their order
    try:
        accuracy = classifiers.accuracy(classifier, images, fit)
    finally:
        noting.remove()
    return Outcome(accuracy, torch.cat(predicted).numpy() == images.labels)
