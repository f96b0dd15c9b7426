"""Computes the features of a frozen backbone once for each set of images."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from distdiff.caching.stages import StageCache
from distdiff.classification.config import LINEAR_PROBE, NONE
from distdiff.classification.data import AheadBatches, ImageTensors
from distdiff.classification.networks import ImageClassifier
from distdiff.ranks.trainer import trainer_device

STAGE, REVISION = "features", 1  # increase REVISION when a change here changes features
FILE, FEATURES = "features.safetensors", "features"
BATCH = 50  # images; the features do not depend on this number


class FrozenFeatures:
    """Gives sets of images their features, if the classifier that will see them has a frozen backbone.

    The features, (n, D) float32, are those of the images without augmentation. They are kept in `cache` under
    `backbone`, which identifies the backbone, and the identities of the images.
    """

    def __init__(self, backbone: dict[str, Any], trainer_config: DictConfig, cache: StageCache) -> None:
        self.backbone = {name: value for name, value in backbone.items() if name != "freeze"}
        self.trainer_config = trainer_config
        self.cache = cache

    def to_train(
        self, classifier: ImageClassifier, images: ImageTensors, identities: tuple[str, ...], fit: str
    ) -> ImageTensors:
        """The images with features in place of pixels, if only these are needed to train the classifier."""
        return self._given(classifier, images, identities, fit) if classifier.freeze == LINEAR_PROBE else images

    def to_test(
        self, classifier: ImageClassifier, images: ImageTensors, identity: str | None, fit: str
    ) -> ImageTensors:
        """The same to test the classifier. Without an `identity`, nothing is kept, and the images remain as they are."""
        if classifier.freeze == NONE or identity is None:
            return images
        return self._given(classifier, images, (identity,), fit)

    def _given(
        self, classifier: ImageClassifier, images: ImageTensors, identities: tuple[str, ...], fit: str
    ) -> ImageTensors:
        ingredients = {
            "revision": REVISION,
            "backbone": self.backbone,
            "data": list(identities),
            "images": len(images),
            "size": images.size,
            "side": images.side,
            "fit": fit,
        }

        def fill(folder: Path) -> None:
            save_file({FEATURES: self._computed(classifier, images)}, folder / FILE)

        images.features = load_file(self.cache.get_alone(STAGE, ingredients, fill) / FILE)[FEATURES]
        return images

    @torch.no_grad()
    def _computed(self, classifier: ImageClassifier, images: ImageTensors) -> torch.Tensor:
        device, was_training = trainer_device(self.trainer_config), classifier.training
        classifier.to(device).eval()
        batches = AheadBatches(BatchSampler(SequentialSampler(images), BATCH, drop_last=False), images)
        # With a generator of its own, the loader draws no number that the training would draw.
        loader = DataLoader(images, batch_sampler=batches, generator=torch.Generator())
        found = torch.cat([classifier.features(pixels.to(device)).float().cpu() for pixels, *_ in loader])
        classifier.cpu().train(was_training)
        return found
