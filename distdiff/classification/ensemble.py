"""Several classifiers as one: a deep ensemble (Lakshminarayanan et al., NeurIPS 2017)."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from distdiff.classification.networks import ImageClassifier


class Ensemble(ImageClassifier):
    """Classifiers of one architecture whose features stand side by side and whose class probabilities are averaged.

    `features` are (B, n·D) of n members, and `head` and `forward` give log p (B, num_classes), the logarithm of the mean
    probabilities.
    """

    def __init__(self, members: Sequence[ImageClassifier]) -> None:
        nn.Module.__init__(self)
        self.backbone = _SideBySide([member.backbone for member in members])
        self.head = _MeanProbabilities([member.head for member in members])
        self.feature_dim = sum(member.feature_dim for member in members)
        self.preprocess = members[0].preprocess


class _SideBySide(nn.Module):
    def __init__(self, backbones: Sequence[nn.Module]) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(backbones)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([backbone(inputs) for backbone in self.backbones], dim=1)


class _MeanProbabilities(nn.Module):
    def __init__(self, heads: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.out_features = heads[0].out_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        own = features.split([head.in_features for head in self.heads], dim=1)
        logs = [F.log_softmax(head(each), dim=1) for head, each in zip(self.heads, own, strict=True)]
        return torch.stack(logs).logsumexp(0) - math.log(len(logs))
