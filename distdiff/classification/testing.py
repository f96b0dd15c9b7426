"""Measures a classifier on images that it has not seen in training, with torchmetrics."""

from dataclasses import dataclass, field

import torch
from torch import nn
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

BINS = 15  # of confidence, for the calibration error (Guo et al., 2017)


@dataclass(frozen=True)
class ClassAccuracy:
    """The fraction of a class's `num_test` images that is classified correctly; 0 for a class without images."""

    class_name: str
    accuracy: float
    num_test: int


@dataclass(frozen=True)
class Accuracies:
    """What a classifier does with the images on which it is tested.

    - `accuracy`: the fraction of all images that is classified correctly.
    - `classes`: the accuracy of each class, in class order.
    - `macro_f1`: the mean of the classes' F1 scores.
    - `calibration_error`: the mean difference, over all images, between the probability of the predicted class and the
      accuracy at this probability, in `BINS` bins of equal width (expected calibration error; Guo et al., 2017).
    - `confusion`: the number of images of class i that are classified as class j, as `confusion[i][j]`.
    - `correct`: for each image, in the order of the images, whether it is classified correctly.
    """

    accuracy: float
    classes: tuple[ClassAccuracy, ...]
    macro_f1: float = 0.0
    calibration_error: float = 0.0
    confusion: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    correct: tuple[bool, ...] = field(default=(), repr=False)

    @property
    def worst(self) -> ClassAccuracy:
        """The class with the lowest accuracy; the first of them if several have it."""
        return min(self.classes, key=lambda found: found.accuracy)


class TestMetrics(nn.Module):
    """Gathers what `Accuracies` holds, from logits (B, classes) and labels (B,) of one batch after another."""

    __test__ = False  # pytest would take the class for tests

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.class_accuracy = MulticlassAccuracy(num_classes, average="none")
        self.macro_f1 = MulticlassF1Score(num_classes, average="macro")
        self.calibration_error = MulticlassCalibrationError(num_classes, n_bins=BINS, norm="l1")
        self.confusion = MulticlassConfusionMatrix(num_classes)
        self.correct: list[torch.Tensor] = []

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        for metric in (self.accuracy, self.class_accuracy, self.macro_f1, self.confusion):
            metric.update(logits, labels)
        # Logits that all happen to lie between 0 and 1 would be taken for probabilities.
        self.calibration_error.update(logits.float().softmax(-1), labels)
        self.correct.append((logits.argmax(-1) == labels).cpu())

    def result(self, class_names: tuple[str, ...]) -> Accuracies:
        counts = self.confusion.compute().cpu()
        of_class = zip(class_names, self.class_accuracy.compute().tolist(), counts.sum(1).tolist(), strict=True)
        return Accuracies(
            self.accuracy.compute().item(),
            tuple(ClassAccuracy(*found) for found in of_class),
            self.macro_f1.compute().item(),
            self.calibration_error.compute().item(),
            tuple(map(tuple, counts.tolist())),
            tuple(torch.cat(self.correct).tolist()),
        )
