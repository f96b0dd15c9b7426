"""The images on which a pipeline is trained: as many as possible, since nothing is compared on the others."""

import numpy as np
from omegaconf import DictConfig

from distdiff.console.progress import console
from distdiff.data.datasets import load_dataset, load_without_carving
from distdiff.data.enlarging import say_enlarged, usual_side
from distdiff.data.images import LabelledImages
from distdiff.data.leaks import tell_leaks
from distdiff.data.readable import readable
from distdiff.data.splits.apart import apart
from distdiff.data.splits.carving import FIXED
from distdiff.errors import UserError
from distdiff.pretraining.config import ALL, SMALLEST, size_multiple
from distdiff.wording import counted

VALIDATION_SHARE = 0.05  # of the images, if the dataset has no validation images of its own


def pretraining_images(config: DictConfig) -> tuple[LabelledImages, LabelledImages]:
    """The readable images to train on, and those on which the losses are measured.

    Prints how many there are of each. Raises `UserError` if there is only one image.
    """
    every = config.pretrain.images == ALL
    splits = (load_without_carving if every else load_dataset)(config.dataset)
    tell_leaks(splits)
    train, validation, test = splits.train, splits.validation, splits.test
    if not len(validation):
        train, validation = _small_part(train)
    if not len(validation):
        raise UserError(f"dataset {train.name}: pretraining takes two images or more, one of them for validation")
    (train, _), (validation, _) = readable(train, "train"), readable(validation, "validation")
    used = f"pretrain on {counted(len(train), 'image')} of dataset {train.name}, and {len(validation):,} for validation"
    if len(test):
        used += f"; {counted(len(test), 'test image')} left out"
    elif every:
        used += "; a study of this dataset would test on some of them, unless pretrain.images=train"
    console.print(used)
    return train, validation


def image_size(config: DictConfig, images: LabelledImages) -> int:
    """`pretrain.image_size` or, if it is null, the images' own size, at most `dataset.image_size`.

    Their own size is rounded down to one that the networks take. Notes a typed size that is much larger.
    """
    keys = config.pretrain
    multiple = size_multiple(keys)
    if keys.image_size is not None:
        say_enlarged(images, config.dataset.fit, {"pretrain.image_size": keys.image_size}, multiple)
        return keys.image_size
    side = min(usual_side(images, config.dataset.fit) or config.dataset.image_size, config.dataset.image_size)
    size = max(side // multiple * multiple, -(-SMALLEST // multiple) * multiple)
    console.print(f"images of {size}x{size} pixels; pretrain.image_size sets another size")
    return size


def _small_part(images: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Holds out `VALIDATION_SHARE` of the images, at least one. Returns (rest, held out).

    Images of the same group in `images.groups` stay together.
    """
    groups = np.arange(len(images)) if images.groups is None else images.groups
    order = np.random.default_rng(FIXED).permutation(np.unique(groups))
    held_out = np.isin(groups, order[: min(max(1, round(VALIDATION_SHARE * len(order))), len(order) - 1)])
    return apart(images.select(np.flatnonzero(~held_out)), images.select(np.flatnonzero(held_out)))
