"""The judge, a classifier that is trained on many real images and on no synthetic images."""

import itertools
from dataclasses import dataclass

import torch

from distdiff.classification.networks import ImageClassifier
from distdiff.classification.training import ClassifierTrainer, TrainingSet
from distdiff.console.stages import display
from distdiff.data.images import LabelledImages
from distdiff.metrics.base import Features
from distdiff.ranks.trainer import trainer_device

SEED = 0  # the judge belongs to the dataset, not to a study seed
BATCH = 200  # images in a batch; the features do not depend on this number
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Judge:
    """A classifier that runs on `device`.

    `fit` says how images become squares of `input_size` pixels a side before the classifier sees them.
    """

    classifier: ImageClassifier
    input_size: int
    fit: str
    device: torch.device = CPU

    @torch.no_grad()
    def __call__(self, images: LabelledImages) -> Features:
        """The features and predictions for one or more images.

        The images are processed in batches on `device`, and the results are returned on the CPU.
        """
        self.classifier.to(self.device)
        features, predicted = [], []
        pixels = images.stream(self.input_size, self.fit)
        with display.stage("judge: look at the images", len(images), "images", brief=True) as bar:
            while chunk := list(itertools.islice(pixels, BATCH)):
                part = self.classifier.features(torch.stack(chunk).to(self.device))
                features.append(part.cpu())
                predicted.append(self.classifier.head(part).argmax(-1).cpu())
                bar.advance(len(chunk))
        return Features(torch.cat(features), torch.tensor(images.labels), torch.cat(predicted))


def train_judge(classifiers: ClassifierTrainer, pool: TrainingSet, steps: int, input_size: int) -> Judge:
    """Trains the judge on the dataset's whole training pool, from which studies draw their few images.

    The `trainer` keys name the device on which the judge is trained and later runs.
    """
    classifier = classifiers.plain().with_steps(steps).train(pool, SEED, "judge")
    return Judge(classifier, input_size, pool.fit, trainer_device(classifiers.trainer_config))
