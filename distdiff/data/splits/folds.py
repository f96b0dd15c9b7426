"""Cross-validation: splits the training images into folds, one of which is used for validation."""

import warnings
from dataclasses import replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.notes import note
from distdiff.data.splits.apart import apart
from distdiff.errors import UserError
from distdiff.wording import counted, some


def fold_as_validation(splits: DatasetSplits, num_folds: int, fold: int, seed: int) -> DatasetSplits:
    """Uses one fold of the training images, the one with the index `fold` (from 0), as the validation images.

    If the dataset has validation images of its own, they are left out, and this is noted.
    """
    if own := len(splits.validation):
        note(
            splits.train.name,
            f"its own {counted(own, 'validation image')} left out: dataset.num_folds={num_folds} validates on folds",
        )
    train, validation = take_fold(splits.train, num_folds, fold, seed)
    return replace(splits, train=train, validation=validation)


def take_fold(images: LabelledImages, num_folds: int, fold: int, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Draws `num_folds` stratified folds of nearly equal size with `seed`.

    Returns the images outside the fold with the index `fold` (from 0), and the images in this fold. Images of the same
    group in `images.groups` stay together. A class with fewer images than there are folds is missing from some folds. A
    class with a single image is in no fold, so that the images outside the fold have every class. Raises `UserError` if
    every class has fewer images than there are folds.
    """
    counts = class_sizes(images)
    _check(images, counts, num_folds)
    parted = np.flatnonzero(counts[images.labels] > 1)
    together = None if images.groups is None else images.groups[parted]
    kind = StratifiedKFold if together is None else StratifiedGroupKFold
    splitter = kind(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # `_check` names these classes
        folds = list(splitter.split(parted, images.labels[parted], together))
    chosen = parted[folds[fold][1]]
    return apart(images.select(np.setdiff1d(np.arange(len(images)), chosen)), images.select(chosen))


def class_sizes(images: LabelledImages) -> np.ndarray:
    """The number (Y,) of what folds divide of each class: its images or, where these have groups, its groups."""
    groups = np.arange(len(images)) if images.groups is None else images.groups
    _, first = np.unique(groups, return_index=True)
    return np.bincount(images.labels[first], minlength=len(images.class_names))


def _check(images: LabelledImages, counts: np.ndarray, num_folds: int) -> None:
    """Checks that there are enough images for the folds.

    `counts` holds the number of images (or of groups) of each class.
    """
    if num_folds > counts.max():
        most = counted(int(counts.max()), "training image" if images.groups is None else "source")
        raise UserError(
            f"dataset.num_folds={num_folds} is not allowed: at most the {most} that the largest class of dataset "
            f"{images.name} has"
        )
    if few := [name for name, count in zip(images.class_names, counts, strict=True) if count < num_folds]:
        alone = "; a single image of a class is always trained on" if counts.min() == 1 else ""
        note(
            images.name,
            f"{counted(len(few), 'class')} with fewer training images than dataset.num_folds={num_folds}, not in every "
            f"fold: {some(few)}{alone}",
        )
