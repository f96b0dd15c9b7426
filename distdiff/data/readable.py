"""Leaves out unreadable images before a dataset is used, and reports them."""

from dataclasses import replace

import numpy as np

from distdiff.console.progress import console
from distdiff.data.examining import examine
from distdiff.data.images import LabelledImages
from distdiff.errors import UserError
from distdiff.ranks.world import world

NAMED = 5  # a message names at most this many unreadable images, and gives the number of the others


def readable(images: LabelledImages, split: str) -> tuple[LabelledImages, str]:
    """The readable images and their identity (see `examine`).

    The unreadable images are reported, and listed in the field `unreadable` of the returned images. Raises `UserError`
    if all images of some class are unreadable.
    """
    left, identity = checked(images)
    world().once(lambda: say_unreadable(left, split))
    return left, identity


def checked(images: LabelledImages) -> tuple[LabelledImages, str]:
    """The readable images and their identity, as in `readable`, but without a report or an error.

    The leading rank reads the images, and all ranks get its result.
    """
    value_range = images.options.value_range
    # The leading rank may have looked at all training images to find the range.
    lost, identity, value_range.known = world().once(lambda: (*examine(images), value_range.known))
    return replace(images.without(lost), identity=identity), identity


def say_unreadable(images: LabelledImages, split: str) -> None:
    """Prints one line about the unreadable images of a split.

    Raises `UserError` if all images of some class are unreadable.
    """
    if not images.unreadable:
        return
    left, lost = {images.class_names[label] for label in np.unique(images.labels)}, images.unreadable
    if without := [image for image in lost if image.class_name not in left]:
        raise UserError(
            f"dataset {images.name}: no {split} image of class {without[0].class_name} can be read: "
            f"{describe_unreadable(without)}"
        )
    total = len(images) + len(lost)
    console.print(
        f"{len(lost):,} of {total:,} {split} images cannot be read and are left out: {describe_unreadable(lost)}",
    )


def describe_unreadable(unreadable: list | tuple) -> str:
    """Names the first `NAMED` images, each with the reason why it cannot be read, and gives the number of others."""
    named = "; ".join(f"{image.class_name}/{image.key}: {image.reason}" for image in unreadable[:NAMED])
    return named + (f"; and {len(unreadable) - NAMED:,} more" if len(unreadable) > NAMED else "")
