"""Training and testing a classifier, as a Lightning module."""

import kornia.augmentation as K
import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from distdiff.classification.callback_keys import LOSS, VAL_ACCURACY, VAL_LOSS
from distdiff.classification.config import LINEAR_PROBE
from distdiff.classification.loss import ClassificationLoss
from distdiff.classification.mixing import BatchMixing
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.recipe import Recipe
from distdiff.classification.testing import TestMetrics
from distdiff.keys import build


class ClassifierTraining(L.LightningModule):
    """Trains with the loss and the optimizer of a recipe, on augmented images.

    A batch is (images (B, 3, H, W) in [0, 1], targets), or has the weights (B,) of the images as a third element. The
    targets are labels (B,) or, if the dataset has soft labels, the probabilities of all classes (B, classes). If images
    are larger than the network's input, random squares are cut out of them, except if a linear probe is trained on features.
    """

    def __init__(
        self,
        classifier: ImageClassifier,
        augmentation: nn.Module,
        recipe: Recipe,
        class_weights: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.augmentation = augmentation.requires_grad_(False)  # DDP waits for gradients of all parameters
        self.recipe = recipe
        self.loss = ClassificationLoss(recipe.label_smoothing, class_weights)
        larger = recipe.loaded_size(classifier.input_size) > classifier.input_size
        cut = larger and classifier.freeze != LINEAR_PROBE
        self.crop = K.RandomCrop((classifier.input_size,) * 2) if cut else nn.Identity()
        classes = classifier.head.out_features
        self.tested = TestMetrics(classes)
        # Only the leading rank's weights are saved, so its own values count, not those of all ranks together.
        self.val_accuracy = MulticlassAccuracy(classes, average="micro", sync_on_compute=False)
        self.val_loss = MeanMetric(sync_on_compute=False)

    def training_step(self, batch: tuple[torch.Tensor, ...], _: int) -> torch.Tensor:
        images, targets, *weights = batch
        with torch.no_grad():
            if isinstance(self.augmentation, BatchMixing):
                if targets.dim() == 1:
                    targets = F.one_hot(targets, self.classifier.head.out_features).to(images)
                # Cut out first, so that labels are mixed by the areas that are left. Weights are mixed as labels are.
                columns = torch.cat([targets, *(each[:, None].to(targets) for each in weights)], dim=1)
                images, columns = self.augmentation(self.crop(images), columns)
                targets, *weights = columns.split([targets.shape[1], *(1 for _ in weights)], dim=1)
                weights = [each[:, 0] for each in weights]
            else:
                images = self.crop(self.augmentation(images))
        loss = self.loss(self.classifier(images), targets, *weights)
        self.log(LOSS, loss)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        images, labels = batch
        logits = self.classifier(images)
        self.val_accuracy.update(logits, labels)
        self.val_loss.update(F.cross_entropy(logits, labels), len(labels))

    def on_validation_epoch_end(self) -> None:
        for name, metric in ((VAL_LOSS, self.val_loss), (VAL_ACCURACY, self.val_accuracy)):
            self.log(name, self.trainer.strategy.broadcast(metric.compute(), 0))
            metric.reset()

    def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        images, labels = batch
        self.tested.update(self.classifier(images), labels)

    def configure_optimizers(self) -> object:
        return build(self.recipe.optimizer, list(self.classifier.parameters()), self.recipe.steps)
