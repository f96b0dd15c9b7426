"""Tests a classifier and notes which images it labels rightly."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from distdiff.classification.networks import ImageClassifier
from distdiff.classification.training import ClassifierTrainer
from distdiff.data.images import LabelledImages
from distdiff.ranks.world import world


@dataclass(frozen=True)
class Tested:
    """The fraction of images that are labelled rightly, and for each image whether it is, (n,) bool."""

    accuracy: float
    correct: np.ndarray


def tested(classifiers: ClassifierTrainer, classifier: ImageClassifier, images: LabelledImages, fit: str) -> Tested:
    """Tests `classifier` on `images`, by the leading rank. All ranks get the result."""
    return world().once(lambda: _tested(classifiers, classifier, images, fit))


def _tested(classifiers: ClassifierTrainer, classifier: ImageClassifier, images: LabelledImages, fit: str) -> Tested:
    predicted: list[torch.Tensor] = []

    def note(_: nn.Module, __: object, logits: torch.Tensor) -> None:
        predicted.append(logits.argmax(-1).cpu())

    noting = classifier.register_forward_hook(note)  # the images are tested in their order
    try:
        accuracy = classifiers.accuracy(classifier, images, fit)
    finally:
        noting.remove()
    return Tested(accuracy, torch.cat(predicted).numpy() == images.labels)
