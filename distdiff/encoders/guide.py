"""The guide encoder φ: a classifier trained on the real images, or read from a checkpoint, seen as a feature extractor."""

import torch

from distdiff.classification.networks import ImageClassifier
from distdiff.encoders.base import Encoder


class GuideEncoder(Encoder):
    """φ(x): what a classifier's head sees."""

    def __init__(self, classifier: ImageClassifier) -> None:
        super().__init__(classifier, classifier.preprocess, classifier.feature_dim)

    @property
    def classifier(self) -> ImageClassifier:
        return self.network

    def extract(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.classifier.backbone(inputs)
