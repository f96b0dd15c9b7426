"""Splits that depend on nothing but the data and a fixed number, never on a study's seed."""

import numpy as np
from sklearn.model_selection import train_test_split

from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.errors import UserError

FIXED = 0  # the split's own seed: changing the study's seed must never move an image into or out of the test set


def carve(images: LabelledImages, size: int | float, what: str) -> tuple[LabelledImages, LabelledImages]:
    """(rest, carved), stratified by class; `size` is a count or a fraction."""
    positions = np.arange(len(images))
    try:
        rest, carved = train_test_split(positions, test_size=size, stratify=images.labels, random_state=FIXED)
    except ValueError as error:
        raise UserError(f"dataset {images.name}: cannot carve a {what} split of {size} out of it ({error})") from None
    return images.select(np.sort(rest)), images.select(np.sort(carved))


def split_three_ways(images: LabelledImages, validation: int | float, test: int | float) -> DatasetSplits:
    """Carves a test split, then a validation split from what is left."""
    rest, test_images = carve(images, test, "test")
    train, validation_images = carve(rest, validation, "validation")
    return DatasetSplits(train, validation_images, test_images)
