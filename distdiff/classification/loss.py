"""The loss of a classifier: torch's cross-entropy, with weights of classes and of images."""

import torch
from torch import nn
from torch.nn import functional as F

from distdiff.classification.config import BALANCED
from distdiff.classification.recipe import Recipe
from distdiff.classification.sampling import class_shares, expected_shares
from distdiff.data.images import LabelledImages
from distdiff.errors import UserError


class ClassificationLoss(nn.Module):
    """The mean cross-entropy of a batch, as `torch.nn.functional.cross_entropy` defines it.

    Targets are labels (B,) or probabilities of the classes (B, classes). The loss of image i is multiplied by its weight
    s_i if there are `image_weights` (B,), and the mean is then Σ s_i loss_i / Σ s_i. torch's own mean with class weights
    has these in the denominator too if targets are labels, and so has this one.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: torch.Tensor | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, image_weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        classes = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        if image_weights is None:
            return F.cross_entropy(logits, targets, classes, label_smoothing=self.label_smoothing)
        losses = F.cross_entropy(logits, targets, classes, reduction="none", label_smoothing=self.label_smoothing)
        counted = image_weights if classes is None or targets.dim() == 2 else image_weights * classes[targets]
        return (image_weights * losses).sum() / counted.sum()


def class_weights(recipe: Recipe, parts: tuple[LabelledImages, ...]) -> torch.Tensor | None:
    """The weight of each class, (classes,) float32; None if all classes weigh the same.

    `balanced` weights are those of scikit-learn: 1 / (number of classes · share of the class among the drawn images).
    Raises `UserError` if the recipe lists weights for another number of classes, or if a class has no images to balance.
    """
    names, given = parts[0].class_names, recipe.class_weights
    if given is None:
        return None
    if given != BALANCED:
        if len(given) != len(names):
            raise UserError(
                f"train.class_weights={list(given)} is not allowed: {len(given)} weights, and dataset {parts[0].name} has "
                f"{len(names)} classes"
            )
        return torch.tensor(given, dtype=torch.float32)
    shares = class_shares(parts, expected_shares(parts, recipe.mixing, recipe.synthetic_probability))
    if not shares.all():
        missing = names[int(shares.argmin())]
        raise UserError(
            f"train.class_weights=balanced is not allowed: no image of class {missing} is drawn from dataset "
            f"{parts[0].name}, so its weight would be infinite; give a list of weights"
        )
    return torch.from_numpy(1 / (len(names) * shares)).float()
