"""Draws splits that depend only on the data and on a seed of their own, never on a study's seed."""

from collections.abc import Mapping

import numpy as np
from sklearn.model_selection import train_test_split

from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.splits.apart import apart
from distdiff.data.splits.classes import agree_on_classes
from distdiff.errors import UserError
from distdiff.wording import some

FIXED = 0  # the seed of test sets: no seed that a user can change may move an image into or out of a test set
TRAIN, VALIDATION, TEST = "train", "validation", "test"


def complete(
    parts: Mapping[str, LabelledImages], validation_fraction: float, test_fraction: float, split_seed: int = FIXED
) -> DatasetSplits:
    """Completes the splits in `parts`. A missing test or validation split is carved from the training images.

    The test split is carved first. `parts` holds at least `train`. The training images determine the classes.
    `split_seed` is the seed that draws the validation images.
    """
    parts = agree_on_classes(dict(parts))
    train, validation, test = (parts.get(split) for split in (TRAIN, VALIDATION, TEST))
    if test is None:
        train, test = carve(train, test_fraction)
    if validation is None:
        train, validation = carve(train, validation_fraction, split_seed)
    return DatasetSplits(train, validation, test)


def carve(images: LabelledImages, fraction: float, seed: int = FIXED) -> tuple[LabelledImages, LabelledImages]:
    """Carves `fraction` of the images of every class, and returns (rest, carved).

    The number of images is rounded. At least one image is carved from every class that has two or more images. Images
    of the same group in `images.groups` stay together, and `fraction` is then a fraction of a class's groups. An image
    that was made from images on both sides is left out. A `fraction` of 0 carves nothing.
    """
    groups = np.arange(len(images)) if images.groups is None else images.groups
    carved = [
        np.random.default_rng([seed, label]).permutation(of_class)[: held_out(len(of_class), fraction)]
        for label in range(len(images.class_names))
        for of_class in [np.unique(groups[images.labels == label])]
    ]
    chosen = np.flatnonzero(np.isin(groups, np.concatenate(carved)))
    return apart(images.select(np.setdiff1d(np.arange(len(images)), chosen)), images.select(chosen))


def held_out(count: int, fraction: float) -> int:
    """How many of a class's `count` images (or groups of images) a carved split gets.

    >>> [held_out(count, 0.2) for count in (1, 2, 4, 10)], held_out(10, 0.0)
    ([0, 1, 1, 2], 0)
    """
    if fraction == 0:
        return 0
    return min(max(1, round(fraction * count)), max(count - 1, 0))


def check_measurable(images: LabelledImages, split: str, num_folds: int | None = None) -> None:
    """Raises `UserError` if a class has no image in `images`, the split on which accuracy is measured.

    The error message names this split by `split`. The remedy that it suggests depends on `split` and `num_folds`.
    """
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    lacking = [name for name, count in zip(images.class_names, counts, strict=True) if not count]
    if lacking:
        raise UserError(
            f"dataset {images.name}: no {split} image of {len(lacking)} of {len(images.class_names)} classes "
            f"({some(lacking)}): accuracy needs one of each; {_remedy(split, num_folds)}"
        )


def _remedy(split: str, num_folds: int | None) -> str:
    if split == VALIDATION and num_folds is not None:
        return f"dataset.num_folds={num_folds} takes as many images of each class: add images, or make fewer folds"
    own = f"add images, or a {split} split of your own"
    if split != VALIDATION:
        return own
    return (
        f"{own}, or hold training images out: dataset.num_folds=5 does, as does dataset.validation_fraction=0.2 "
        f"unless dataset.split=published"
    )


def split_three_ways(
    images: LabelledImages, validation: int | float, test: int | float, split_seed: int = FIXED
) -> DatasetSplits:
    """Draws a test set with a fixed seed, then a validation set with `split_seed`. Both are stratified by class.

    The sizes `test` and `validation` are counts (int) or fractions (float). `test` is a fraction of all images, and
    `validation` is a fraction of the images that are not in the test set. Raises `UserError` if there are too few
    images.
    """
    rest, test_images = _take(images, test, FIXED)
    train, validation_images = _take(rest, validation, split_seed)
    return DatasetSplits(train, validation_images, test_images)


def _take(images: LabelledImages, size: int | float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    positions = np.arange(len(images))
    try:
        rest, taken = train_test_split(positions, test_size=size, stratify=images.labels, random_state=seed)
    except ValueError:
        raise UserError(f"dataset {images.name}: {len(images):,} images are too few to hold out {size:g}") from None
    return images.select(np.sort(rest)), images.select(np.sort(taken))
