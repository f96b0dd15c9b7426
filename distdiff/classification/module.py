"""Training and testing a classifier, as a Lightning module."""

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from distdiff.classification.mixing import BatchMixing
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.one_cycle import one_cycle
from distdiff.classification.recipe import Recipe
from distdiff.classification.testing import TestMetrics

VAL_LOSS, VAL_ACCURACY, LOSS = "val_loss", "val_accuracy", "loss"  # the metrics that callbacks may monitor
WARM_UP = 0.2  # the share of steps in which the learning rate rises


class ClassifierTraining(L.LightningModule):
    """Trains with cross-entropy, AdamW and a one-cycle schedule, on augmented images.

    A batch is (images (B, 3, H, W) in [0, 1], targets). The targets are labels (B,) or, if the dataset has soft labels,
    the probabilities of all classes (B, classes).
    """

    def __init__(self, classifier: ImageClassifier, augmentation: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.classifier = classifier
        self.augmentation = augmentation.requires_grad_(False)  # DDP waits for gradients of all parameters
        self.recipe = recipe
        classes = classifier.head.out_features
        self.tested = TestMetrics(classes)
        # Only the leading rank's weights are saved, so its own values count, not those of all ranks together.
        self.val_accuracy = MulticlassAccuracy(classes, average="micro", sync_on_compute=False)
        self.val_loss = MeanMetric(sync_on_compute=False)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        images, targets = batch
        with torch.no_grad():
            if isinstance(self.augmentation, BatchMixing):
                if targets.dim() == 1:
                    targets = F.one_hot(targets, self.classifier.head.out_features).to(images)
                images, targets = self.augmentation(images, targets)
            else:
                images = self.augmentation(images)
        loss = F.cross_entropy(self.classifier(images), targets, label_smoothing=self.recipe.label_smoothing)
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

    def configure_optimizers(self) -> dict[str, object]:
        recipe = self.recipe
        return one_cycle(
            self.classifier.parameters(), recipe.steps, recipe.learning_rate, recipe.weight_decay, warm_up=WARM_UP
        )
