"""A training recipe: everything that determines a trained classifier, except the images and the seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig

from distdiff.caching.fingerprint import plain
from distdiff.classification.config import (
    BALANCED,
    CONCATENATE,
    EQUAL_STEPS,
    MOST_STEPS,
    PROBABILITY,
    REPLACE,
    WEIGHTED,
)
from distdiff.errors import UserError
from distdiff.keys import TARGET, option_identity

ADAMW = "distdiff.classification.optimizers.adamw"
ONE_CYCLE = {"schedule": "one_cycle", "warmup": 0.2}
NORMALIZATION = ("mean", "std")  # keys of a classifier that came later; null means what was done before


@dataclass(frozen=True)
class Recipe:
    """A network, an augmentation, an optimizer, a loss, and which images are drawn how often.

    `classifier`, `augmentation` and `optimizer` are options of the configuration groups with the same names. Either
    `steps` or `epochs` is a number; `for_images` turns epochs into steps. All other fields but the last are the `train`
    keys with the same names, see conf/train/README.md.
    """

    classifier: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    steps: int | None
    batch_size: int
    epochs: int | None = None
    label_smoothing: float = 0.0
    class_weights: str | Sequence[float] | None = None
    mixing: str = CONCATENATE
    synthetic_probability: float | None = None
    synthetic_weight: float | None = None
    resize: int | None = None
    accumulated: int = 1  # batches of a step (`trainer.accumulate_grad_batches`); epochs alone depend on it

    @classmethod
    def of(cls, config: DictConfig, largest: int | None = None) -> "Recipe":
        """The recipe of the downstream classifier, from the keys `classifier`, `augmentation`, `optimizer` and `train`.

        `largest` is the number of images in the largest training set of a study. If it is given and `train.budget` is
        `steps`, epochs are epochs of this training set.
        """
        train = config.train
        recipe = cls(
            plain(config.classifier),
            plain(config.augmentation),
            plain(config.optimizer),
            train.steps,
            train.batch_size,
            train.epochs,
            train.label_smoothing,
            plain(train.class_weights),
            train.mixing,
            train.synthetic_probability if train.mixing in (PROBABILITY, REPLACE) else None,
            train.synthetic_weight if train.mixing == WEIGHTED else None,
            train.resize,
            config.trainer.accumulate_grad_batches,
        )
        if largest is None or train.budget != EQUAL_STEPS or recipe.epochs is None:
            return recipe
        return recipe.with_epochs_of(largest)

    def loaded_size(self, input_size: int) -> int:
        """The side in pixels of the squares to which images are fitted, before any crop to the network's `input_size`."""
        return input_size if self.resize is None else self.resize

    def for_images(self, real: int, synthetic: int = 0) -> "Recipe":
        """This recipe with a number of steps, for so many real and synthetic images.

        An epoch has ceil(n / batch_size) steps, with several batches a step fewer. n is the number of all images or, if
        real images are replaced by synthetic ones as they are drawn, of the real images.
        """
        if self.epochs is None:
            return self
        return self.with_epochs_of(real if self.mixing == REPLACE else real + synthetic)

    def with_epochs_of(self, images: int) -> "Recipe":
        """This recipe with the steps of its epochs of so many images. Raises `UserError` if these are too many."""
        steps = self.epochs * math.ceil(images / (self.batch_size * self.accumulated))
        if steps > MOST_STEPS:
            raise UserError(
                f"train.epochs={self.epochs} is not allowed: epochs of {images:,} images have {steps:,} steps in total, "
                f"more than {MOST_STEPS:,}"
            )
        return self.with_steps(steps)

    def longer(self, times: int) -> "Recipe":
        """This recipe with so many times as many steps or epochs."""
        return replace(self, steps=self.steps and times * self.steps, epochs=self.epochs and times * self.epochs)

    def with_steps(self, steps: int) -> "Recipe":
        return replace(self, steps=steps, epochs=None)

    def identity(self, has_synthetic: bool) -> dict[str, Any]:
        """The values that identify a recipe with a number of steps.

        Recipes that train alike have the same identity, even if they are configured by different keys. How real and
        synthetic images are mixed is part of the identity only if `has_synthetic` is true. What was added later is part
        of it only where it differs from what was done before, so that classifiers of earlier versions are found.
        """
        identity = {
            "classifier": classifier_identity(self.classifier),
            "augmentation": option_identity(self.augmentation),
            "steps": self.steps,
            "batch_size": self.batch_size,
            **self._optimizer_identity(),
            "label_smoothing": float(self.label_smoothing),
        }
        if self.class_weights is not None:
            is_word = self.class_weights == BALANCED
            identity["class_weights"] = BALANCED if is_word else [float(weight) for weight in self.class_weights]
        if self.resize not in (None, self.classifier["input_size"]):
            identity["resize"] = self.resize
        return identity | (self._mixing_identity() if has_synthetic else {})

    def _optimizer_identity(self) -> dict[str, Any]:
        keys = option_identity(self.optimizer)
        if keys[TARGET] == ADAMW and all(keys[name] == value for name, value in ONE_CYCLE.items()):
            return {name: float(keys[name]) for name in ("learning_rate", "weight_decay")}
        return {"optimizer": keys}

    def _mixing_identity(self) -> dict[str, Any]:
        if self.mixing == WEIGHTED:
            return {"mixing": WEIGHTED, "synthetic_weight": float(self.synthetic_weight)}
        if self.mixing == REPLACE:
            return {"mixing": REPLACE, "synthetic_probability": float(self.synthetic_probability)}
        return {"synthetic_probability": self.synthetic_probability}  # None: every image is drawn equally often


def adamw_one_cycle(learning_rate: float, weight_decay: float) -> dict[str, Any]:
    """The option `optimizer=adamw` with the schedule that guides are trained with."""
    return {TARGET: ADAMW, "learning_rate": learning_rate, "weight_decay": weight_decay, **ONE_CYCLE}


def classifier_identity(classifier: Mapping[str, Any]) -> dict[str, Any]:
    """Identifies the network that an option of `classifier` builds. A normalization of null is left out."""
    identity = option_identity(classifier)
    return {name: value for name, value in identity.items() if name not in NORMALIZATION or value is not None}
