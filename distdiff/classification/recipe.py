"""A training recipe: everything that determines a trained classifier, except the images and the seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from distdiff.caching.fingerprint import plain
from distdiff.keys import option_identity


@dataclass(frozen=True)
class Recipe:
    """A network, an augmentation and the optimizer's settings.

    `classifier` and `augmentation` are options of the configuration groups with the same names. `synthetic_probability`
    is the share of synthetic images among the images drawn for training. If it is None, every image is drawn equally
    often.
    """

    classifier: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float = 0.0
    synthetic_probability: float | None = None

    @classmethod
    def of(cls, config: DictConfig) -> "Recipe":
        """The recipe of the downstream classifier, from the `classifier`, `augmentation` and `train` keys."""
        train = config.train
        return cls(
            plain(config.classifier),
            plain(config.augmentation),
            train.steps,
            train.batch_size,
            train.learning_rate,
            train.weight_decay,
            train.label_smoothing,
            train.synthetic_probability,
        )

    def identity(self, has_synthetic: bool) -> dict[str, Any]:
        """The values that identify the recipe.

        Recipes that train alike have the same identity, even if they are configured by different keys. The share
        of synthetic images is part of the identity only if `has_synthetic` is true.
        """
        identity = {
            "classifier": option_identity(self.classifier),
            "augmentation": option_identity(self.augmentation),
            "steps": self.steps,
            "batch_size": self.batch_size,
            "learning_rate": float(self.learning_rate),
            "weight_decay": float(self.weight_decay),
            "label_smoothing": float(self.label_smoothing),
        }
        if has_synthetic:
            identity["synthetic_probability"] = self.synthetic_probability
        return identity
