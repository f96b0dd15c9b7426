"""Chooses the classes of a dataset and leaves out empty ones."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distdiff.data.images import LabelledImages
from distdiff.data.notes import note
from distdiff.errors import UserError
from distdiff.wording import counted, some


def keep_classes(images: LabelledImages, class_names: Sequence[str]) -> LabelledImages:
    """Only the images of the classes `class_names`. A label in the result is an index into `class_names`."""
    if tuple(class_names) == images.class_names:
        return images
    number = {name: label for label, name in enumerate(class_names)}
    new = np.array([number.get(name, -1) for name in images.class_names], dtype=np.int64)[images.labels]
    kept = images.select(np.flatnonzero(new >= 0))
    return replace(kept, class_names=tuple(class_names), labels=new[new >= 0])


def agree_on_classes(parts: dict[str, LabelledImages]) -> dict[str, LabelledImages]:
    """Keeps in all parts only the classes that have a training image. Notes the classes and images that are left out.

    Raises `UserError` if there is no image to train on, or if a class has no name.
    """
    train = parts["train"]
    counts = np.bincount(train.labels, minlength=len(train.class_names))
    names = [name for name, count in zip(train.class_names, counts, strict=True) if count]
    if not names:
        raise UserError(f"dataset {train.name}: there are no images to train on")
    if not all(name.strip() for name in names):
        raise UserError(f"dataset {train.name}: a class has an empty name; each class needs a name")
    empty = sorted({name for part in parts.values() for name in part.class_names} - set(names))
    if empty:
        lost = sum(int(np.isin(part.labels, _numbers(part, empty)).sum()) for part in parts.values())
        held = f", and their {counted(lost, 'image')} of other splits" if lost else ""
        note(train.name, f"{counted(len(empty), 'class')} left out, without a training image{held}: {some(empty)}")
    return {split: keep_classes(part, names) for split, part in parts.items()}


def in_order(labels: set[str]) -> list[str]:
    """The sorted labels. They are sorted as numbers if all of them are whole numbers, and otherwise as text.

    >>> in_order({"10", "9"}), in_order({"b", "10"})
    (['9', '10'], ['10', 'b'])
    """
    if all(label.lstrip("-").isdecimal() for label in labels):
        return sorted(labels, key=int)
    return sorted(labels)


def _numbers(images: LabelledImages, names: Sequence[str]) -> list[int]:
    return [label for label, name in enumerate(images.class_names) if name in set(names)]
