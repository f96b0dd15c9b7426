"""The guide encoder φ: a classifier trained on the real images, seen as a feature extractor."""

import torch
from torch import nn
from torch.nn import functional as F

from distdiff.classification.networks import ImageClassifier


class GuideEncoder(nn.Module):
    """φ(x): L2-normalised features (B, D) of images (B, 3, H, W) in [0, 1]; frozen, but differentiable in x."""

    def __init__(self, classifier: ImageClassifier) -> None:
        super().__init__()
        self.classifier = classifier.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.classifier.features(images), dim=-1)

    def published_features(self, decoded: torch.Tensor) -> torch.Tensor:
        """What the published transform energy sees: unnormalised features of a decoder's output in [-1, 1], resized
        bicubically without antialiasing and without the encoder's input normalisation."""
        size = self.classifier.input_size
        return self.classifier.backbone(F.interpolate(decoded, size=(size, size), mode="bicubic"))
