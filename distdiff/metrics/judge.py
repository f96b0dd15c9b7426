"""The judge: a classifier that saw many real images and no synthetic one."""

from distdiff.classification.networks import ImageClassifier
from distdiff.classification.training import ClassifierTrainer, TrainingSet

SEED = 0  # the judge belongs to the dataset, not to a study seed


def train_judge(classifiers: ClassifierTrainer, pool: TrainingSet, steps: int) -> ImageClassifier:
    """A classifier trained on the dataset's whole training pool, from which studies draw their few images."""
    return classifiers.with_steps(steps).train(pool, SEED, "judge")
