"""Looks at all images of a dataset in one pass, which decodes each image once, with several threads."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from distdiff.console.bar import with_progress
from distdiff.data.images import LabelledImages
from distdiff.data.reading.decoding import UnreadableImage, is_deep, is_scaled, open_image
from distdiff.data.reading.fit import fit_image
from distdiff.data.reading.prefetch import prefetched
from distdiff.data.reading.tags import UPRIGHT, orientation, upright_size
from distdiff.description.similarity import difference_hash, miniature


@dataclass(frozen=True)
class Header:
    """The facts in the header of an image file. `mode` is Pillow's name of the mode, such as RGB, L, P or I;16."""

    format: str
    mode: str
    rotated: bool  # whether the EXIF orientation turns or mirrors the image
    size: tuple[int, int]  # width, height of the upright image at full size, whatever size it is decoded at
    deep: bool = False  # whether it is greyscale with more than 8 bits that Pillow has not scaled


@dataclass(frozen=True)
class Look:
    """One image of a split.

    If the image can be read, `reason` is None and all other fields are set, except perhaps `header` and `tile`. If the
    image cannot be read, `reason` says why.
    """

    split: str
    position: int
    label: int
    key: str
    reason: str | None = None
    size: tuple[int, int] = (0, 0)  # width, height of the upright image
    pixels: bytes = b""  # hash of size and RGB pixels
    bits: int = 0  # perceptual hash
    small: np.ndarray = field(default=None, repr=False)
    header: Header | None = None
    tile: Image.Image | None = field(default=None, repr=False)


def look_over(
    splits: Mapping[str, LabelledImages], shown: Mapping[str, set[int]], tile_size: int, fit: str
) -> list[Look]:
    """A look at every image of every split, in order.

    `shown` says which images get a tile, by their positions in each split. A tile has `tile_size` pixels a side.
    """
    places = [(split, position) for split, images in splits.items() for position in range(len(images))]

    def look(place: tuple[str, int]) -> Look:
        split, position = place
        side = tile_size if position in shown.get(split, ()) else None
        return _look(splits[split], split, position, side, fit)

    workers = next(iter(splits.values())).options.num_workers
    looks = zip(prefetched(look, places, workers), with_progress(places, "look at the images"), strict=True)
    return [look for look, _ in looks]


def spread(labels: np.ndarray, count: int) -> set[int]:
    """The positions of at most `count` images of each class, evenly spaced among the images of the class."""
    chosen: set[int] = set()
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        taken = np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(int)
        chosen |= set(positions[taken].tolist())
    return chosen


def _look(images: LabelledImages, split: str, position: int, side: int | None, fit: str) -> Look:
    label, key = int(images.labels[position]), images.keys[position]
    try:
        image = images.image(position)
    except UnreadableImage as error:
        return Look(split, position, label, key, reason=error.reason)
    header = _header(images, position)
    return Look(
        split,
        position,
        label,
        key,
        size=image.size if header is None else header.size,
        pixels=hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest(),
        bits=difference_hash(image),
        small=miniature(image),
        header=header,
        tile=None if side is None else fit_image(image, side, fit),
    )


def _header(images: LabelledImages, position: int) -> Header | None:
    if images.file is None:
        return None
    file = images.file(int(images.indices[position]))
    with open_image(file) as image:
        turned, size = orientation(image) != UPRIGHT, upright_size(image)
        return Header(str(image.format), image.mode, turned, size, is_deep(image) and not is_scaled(image))
