"""The judge, a classifier that is trained on many real images and on no synthetic images."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint, plain
from distdiff.caching.stages import StageCache
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.recipe import Recipe, adamw_one_cycle
from distdiff.classification.training import ClassifierTrainer, TrainingSet
from distdiff.data.images import LabelledImages
from distdiff.data.splits.carving import carve
from distdiff.metrics.base import Features
from distdiff.metrics.views import CPU, in_batches
from distdiff.ranks.trainer import trainer_device

SEED = 2**31 + 1  # the judge belongs to the dataset, not to a study seed, and differs from every guide's usual seed
VALIDATION = 0.2  # the share of the pool that says when to stop
FIRST_STEPS = 100  # of the first training; each following one has twice as many
BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 32, 2e-3, 5e-4  # of its training


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
        """The features and predictions for images.

        The images are processed in batches on `device`, and the results are returned on the CPU.
        """
        self.classifier.to(self.device)
        if not len(images):
            return Features(torch.empty(0, 0), torch.tensor(images.labels), torch.empty(0, dtype=torch.long))
        features, predicted = zip(
            *in_batches(self._look, images, self.input_size, self.fit, self.device, "judge"), strict=True
        )
        return Features(torch.cat(features), torch.tensor(images.labels), torch.cat(predicted))

    def _look(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The features and the predicted labels of a batch of images."""
        features = self.classifier.features(pixels)
        return features.cpu(), self.classifier.head(features).argmax(-1).cpu()


class JudgeTrainer:
    """Trains the judge on the dataset's whole training pool, from which studies draw their few images.

    The judge has a network of its own, `measure.judge_classifier`, and a recipe that no key of the downstream
    classifier or of the guide changes. The `trainer` keys name the device on which it is trained and later runs.
    """

    def __init__(self, config: DictConfig, cache: StageCache) -> None:
        self.most = config.measure.judge_steps
        self.classifiers = ClassifierTrainer(judge_recipe(config), config.trainer, cache)

    def train(self, pool: TrainingSet) -> Judge:
        """Trains with more and more steps until the accuracy on the validation part of the pool stops rising.

        Each training begins anew, because the learning rate falls to zero at its last step. Of equally accurate
        classifiers, the one with the fewest steps is the judge. Without a validation part, since each class has a
        single image, the first training is the only one.
        """
        part, validation = self._divided(pool)
        best, highest = None, -1.0
        for steps in step_counts(self.most):
            trained = self.classifiers.with_steps(steps).train(part, SEED, "judge")
            accuracy = self.classifiers.accuracy(trained, validation, pool.fit) if len(validation) else highest
            if accuracy <= highest:
                best = best or trained
                break
            best, highest = trained, accuracy
        return Judge(best, best.input_size, pool.fit, trainer_device(self.classifiers.trainer_config))

    def is_ready(self, pool: TrainingSet) -> bool:
        """Whether the trainings that every judge needs are in the cache; the later ones then usually are too."""
        part, _ = self._divided(pool)
        needed = itertools.islice(step_counts(self.most), 2)
        return all(self.classifiers.with_steps(steps).has(part, SEED) for steps in needed)

    def identity(self, pool: TrainingSet) -> str:
        """Identifies the judge, before it is trained."""
        part, _ = self._divided(pool)
        first = self.classifiers.with_steps(next(step_counts(self.most)))
        return fingerprint({"first": first.ingredients(part, SEED), "most": self.most})

    def _divided(self, pool: TrainingSet) -> tuple[TrainingSet, LabelledImages]:
        """The images to train on, and the validation images, which are `VALIDATION` of each class."""
        parts = carve(pool.parts[0], VALIDATION, SEED)
        drawn = {"pool": pool.fingerprints[0], "validation": VALIDATION, "seed": SEED}
        identities = [fingerprint(drawn | {"part": part}) for part in ("train", "validation")]
        rest, validation = (replace(part, identity=own) for part, own in zip(parts, identities, strict=True))
        return TrainingSet((rest,), tuple(identities[:1]), pool.fit), validation


def step_counts(most: int) -> Iterator[int]:
    """The numbers of steps of the judge's trainings, of which the last is `most`.

    >>> list(step_counts(700)), list(step_counts(3))
    ([100, 200, 400, 700], [3])
    """
    steps = min(FIRST_STEPS, most)
    yield steps
    while steps < most:
        steps = min(2 * steps, most)
        yield steps


def judge_recipe(config: DictConfig) -> Recipe:
    """The recipe with which the judge is trained, but for its number of steps."""
    measure, options = config.measure, config.options
    classifier = plain(options.classifier[measure.judge_classifier])
    augmentation = plain(options.augmentation[measure.judge_augmentation])
    optimizer = adamw_one_cycle(LEARNING_RATE, WEIGHT_DECAY)
    return Recipe(classifier, augmentation, optimizer, measure.judge_steps, BATCH_SIZE)
