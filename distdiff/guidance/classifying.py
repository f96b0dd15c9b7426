"""Class probabilities of new images, for guidance methods that follow a classifier."""

import torch
from torch.nn import functional as F

from distdiff.encoders.base import Encoder
from distdiff.encoders.guide import GuideEncoder
from distdiff.guidance.real import RealFeatures

TEMPERATURE = 100.0  # of CLIP's zero-shot classifier (Radford et al., 2021), which GIF uses


def log_probabilities(raw: torch.Tensor, encoder: Encoder, real: RealFeatures) -> torch.Tensor:
    """log p (B, classes) of images with the features `raw` (B, D), which are not normalised.

    With `encoder=guide`, p is the guide's own prediction. With an encoder that has no head for these classes, p is the
    softmax of 100 times the cosine similarity to the mean features of each class's real images; a class without real
    images then has the probability 0.
    """
    if isinstance(encoder, GuideEncoder) and encoder.classifier.head.out_features == real.num_classes:
        return F.log_softmax(encoder.classifier.head(raw), dim=1)
    logits = TEMPERATURE * F.normalize(raw, dim=1) @ real.class_means.to(raw).T
    least = torch.finfo(raw.dtype).min / 2  # not −∞, whose product with a probability of 0 is no number
    return F.log_softmax(logits.masked_fill(~real.has_images.to(raw.device), least), dim=1)


def entropy(log_p: torch.Tensor) -> torch.Tensor:
    """The entropy (B,), in nats, of log p (B, classes)."""
    return -(log_p.exp() * log_p).sum(1)
