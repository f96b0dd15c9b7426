"""Training and testing a classifier, as a Lightning module."""

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from distdiff.classification.mixing import BatchMixing
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.one_cycle import one_cycle
from distdiff.classification.recipe import Recipe

WARM_UP = 0.2  # the share of steps in which the learning rate rises


class ClassifierTraining(L.LightningModule):
    """Trains with cross-entropy, AdamW and a one-cycle schedule, on augmented images.

    A batch is (images (B, 3, H, W) in [0, 1], targets). The targets are labels (B,) or, if the dataset has soft labels,
    the probabilities of all classes (B, classes).
    """

    def __init__(self, classifier: ImageClassifier, augmentation: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.classifier = classifier
        self.augmentation = augmentation
        self.recipe = recipe
        self.accuracy = MulticlassAccuracy(classifier.head.out_features, average="micro")
        self.class_accuracy = MulticlassAccuracy(classifier.head.out_features, average="none")
        self.tested: torch.Tensor | None = None  # the accuracy of each class, 0 for a class without images

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
        self.log("loss", loss)
        return loss

    def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        images, labels = batch
        logits = self.classifier(images)
        self.accuracy.update(logits, labels)
        self.class_accuracy.update(logits, labels)

    def on_test_epoch_end(self) -> None:
        self.log("accuracy", self.accuracy.compute())
        self.tested = self.class_accuracy.compute().cpu()
        self.accuracy.reset()
        self.class_accuracy.reset()

    def configure_optimizers(self) -> dict[str, object]:
        recipe = self.recipe
        return one_cycle(
            self.classifier.parameters(), recipe.steps, recipe.learning_rate, recipe.weight_decay, warm_up=WARM_UP
        )
