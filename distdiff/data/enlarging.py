"""Finds out how large the images of a dataset are, and says when they are enlarged a lot."""

from collections.abc import Mapping

import numpy as np

from distdiff.data.images import LabelledImages
from distdiff.data.notes import note
from distdiff.data.reading.decoding import UnreadableImage, open_image
from distdiff.data.reading.tags import upright_size

SAMPLE = 200  # number of images whose sizes are looked at
ENLARGED = 2.0  # a larger factor is said
SMALLEST, MULTIPLE = 16, 8  # of a side that is suggested, since some networks take no other sides


def usual_side(images: LabelledImages, fit: str) -> int | None:
    """The side in pixels that most of the images have, or None if none of those that are looked at can be read.

    It is the median of the sides that `fit` scales to the side of a square: the longer ones for `pad`, and otherwise the
    shorter ones. Of many images, `SAMPLE` are looked at.
    """
    positions = np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).round().astype(int))
    sizes = [size for position in positions.tolist() if (size := _size(images, position)) is not None]
    if not sizes:
        return None
    sides = np.array(sizes)
    return int(np.median(sides.max(axis=1) if fit == "pad" else sides.min(axis=1)))


def say_enlarged(images: LabelledImages, fit: str, sizes: Mapping[str, int], multiple: int = MULTIPLE) -> None:
    """Notes each key of `sizes` whose size is more than `ENLARGED` times the usual side of the images.

    `sizes` has the side in pixels to which the images are scaled, by the key that sets it. The side that is suggested
    is a multiple of `multiple`.
    """
    side = usual_side(images, fit)
    if side is None:
        return
    for key, size in sizes.items():
        if size > ENLARGED * side:
            note(
                images.name,
                f"its images, usually {side} pixels a side, are enlarged {size / side:.3g} times, to {key}={size}; "
                f"{key}={max(SMALLEST, -(-side // multiple) * multiple)} is about their own size",
                about="sizes",
            )


def _size(images: LabelledImages, position: int) -> tuple[int, int] | None:
    """(width, height) of an image, from the header of its file if it has one."""
    try:
        if images.file is None:
            return images.image(position).size
        with open_image(images.file_of(position)[0]) as image:
            return upright_size(image)
    except (UnreadableImage, OSError, SyntaxError, ValueError):  # Pillow's; unreadable images are reported elsewhere
        return None
