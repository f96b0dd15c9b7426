"""The description of a dataset, as it is written to `description.json`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from distdiff.data.images import LabelledImages
from distdiff.data.notes import Note
from distdiff.data.splits.carving import TRAIN
from distdiff.description.duplicates import Duplicates, Leak, Pair
from distdiff.description.looking import Look


def summarize(
    config: DictConfig,
    splits: Mapping[str, LabelledImages],
    looks: Sequence[Look],
    duplicates: Duplicates,
    same_files: Mapping[tuple[str, str], int],
    prompts: Sequence[Sequence[str]],
    notes: Sequence[Note],
) -> dict[str, Any]:
    """The counts, the sizes and the problems of a dataset.

    `looks` has one look for each image of `splits`, in order. `same_files[split, other]` is how many images of `split`
    are also in `other` as the same file, so that `dataset.drop_leaks` leaves them out.
    """
    names = splits[TRAIN].class_names
    read = [look for look in looks if look.reason is None]
    return {
        "dataset": config.dataset.name,
        "images": len(looks),
        "splits": {
            split: {"images": len(images), "carved": split != TRAIN and images.shares_source(splits[TRAIN])}
            for split, images in splits.items()
        },
        "classes": [
            {
                "name": name,
                "images": {split: int((images.labels == label).sum()) for split, images in splits.items()},
                "prompts": list(prompts[label]),
            }
            for label, name in enumerate(names)
        ],
        "per_class": config.dataset.per_class,
        "balance": balance(splits[TRAIN]),
        "sizes": sizes(read, config.dataset.image_size) | {"fit": config.dataset.fit},
        "files": headers(read),
        "value_range": value_range(config.dataset.value_range, splits[TRAIN], read),
        "left_out": [{"reason": note.message, "files": list(note.files)} for note in notes if note.about is None],
        "assumed": [{"about": note.about, "message": note.message} for note in notes if note.about is not None],
        "unreadable": [
            describe_image(look, names) | {"reason": look.reason} for look in looks if look.reason is not None
        ],
        "leaks": [
            describe_leak(leak, names) | {"same_file": same_files[leak.split, leak.other]}
            for leak in duplicates.leaks()
        ],
        "exact_duplicates": {
            "pictures": len(duplicates.repeated),
            "images": sum(map(len, duplicates.repeated)),
            "conflicts": [[describe_image(look, names) for look in looks] for looks in duplicates.conflicts()],
        },
        "near_duplicates": {
            "pairs": len(duplicates.near),
            "conflicts": duplicates.near_conflicts(),
            "cut_short": duplicates.cut_short,
        },
    }


def balance(train: LabelledImages) -> dict[str, Any]:
    """The names and the numbers of training images of the smallest and the largest class."""
    counts = np.bincount(train.labels, minlength=len(train.class_names))
    ends = {"smallest": int(counts.argmin()), "largest": int(counts.argmax())}
    return {end: {"name": train.class_names[label], "images": int(counts[label])} for end, label in ends.items()}


def sizes(looks: Sequence[Look], image_size: int) -> dict[str, Any]:
    """The minimum, median and maximum width and height of the upright images, in pixels.

    The entry `smaller` is the number of images with a side below `image_size`.
    """
    sides = np.array([look.size for look in looks])
    ends = {"min": sides.min(axis=0), "median": np.median(sides, axis=0), "max": sides.max(axis=0)}
    return {
        "width": {end: float(values[0]) for end, values in ends.items()},
        "height": {end: float(values[1]) for end, values in ends.items()},
        "image_size": image_size,
        "smaller": int((sides.min(axis=1) < image_size).sum()),
    }


def headers(looks: Sequence[Look]) -> dict[str, Any] | None:
    """The number of images of each format and mode, and how many images the EXIF orientation turns or mirrors.

    The result is None for a dataset without image files.
    """
    found = [look.header for look in looks if look.header is not None]
    if not found:
        return None
    return {
        "formats": dict(Counter(header.format for header in found).most_common()),
        "modes": dict(Counter(header.mode for header in found).most_common()),
        "rotated": sum(header.rotated for header in found),
    }


def value_range(key: Any, train: LabelledImages, looks: Sequence[Look]) -> dict[str, Any] | None:
    """The limits of the grey values that `dataset.value_range` sets, and the number of images that have such values.

    `key` is the value of this key. The result is None if there are no such images.
    """
    found = train.options.value_range
    deep = [look.header for look in looks if look.header is not None and look.header.deep]
    counted = sum(found.given or header.mode.startswith("I") for header in deep)  # `auto` and `full` leave floats alone
    if not counted or found.known is None:
        return None
    given = OmegaConf.to_container(key) if OmegaConf.is_list(key) else key
    return {"key": given, "black": found.known[0], "white": found.known[1], "images": counted}


def describe_leak(leak: Leak, names: Sequence[str]) -> dict[str, Any]:
    """A leak as plain values, in which class names replace the labels."""
    pairs = [describe_pair(pair, names) for pair in leak.pairs]
    return {"split": leak.split, "in": leak.other, "exact": leak.exact, "near": leak.near, "pairs": pairs}


def describe_pair(pair: Pair, names: Sequence[str]) -> dict[str, Any]:
    """A pair as plain values: the two images, and the distance between their hashes (None for equal pixels)."""
    first, second = (describe_image(look, names) for look in (pair.first, pair.second))
    return {"first": first, "second": second, "distance": pair.distance}


def describe_image(look: Look, names: Sequence[str]) -> dict[str, str]:
    """The place of an image, given by its split, class and key."""
    return {"split": look.split, "class": names[look.label], "key": look.key}
