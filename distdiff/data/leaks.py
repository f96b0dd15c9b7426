"""Leaks: images to train on that are also images to evaluate on. They are found, told, and left out on request."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distdiff.data.contents import contents_of
from distdiff.data.images import DatasetSplits, LabelledImages, Leak
from distdiff.data.notes import note
from distdiff.data.overlaps import EVALUATED_IN, overlaps
from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION
from distdiff.errors import UserError
from distdiff.ranks.world import world
from distdiff.wording import counted, some

NAMED = 2  # a message names at most this many pairs of images for each leak, and gives the number of the others
WORDS = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}


def tell_leaks(splits: DatasetSplits) -> tuple[Leak, ...]:
    """Finds the leaks between the splits (see `Leak`), notes them in one line, and returns them.

    Leaks that were left out when the dataset was loaded are returned as they were found then, and not noted again.
    """
    if splits.leaks is not None:
        return splits.leaks
    leaks = world().once(lambda: tuple(leak for leak, _ in find_leaks(splits)))
    if line := sentence(leaks):
        note(splits.train.name, line, about="leaks")
    return leaks


def without_leaks(splits: DatasetSplits, between: Sequence[tuple[str, str]] = EVALUATED_IN) -> DatasetSplits:
    """Leaves out the training images that are also validation or test images, and validation images that are test images.

    `between` lists the pairs of splits that count, as `EVALUATED_IN` does. Notes what is left out. Raises `UserError`
    if this would be all training images of a class.
    """
    parts, found = {TRAIN: splits.train, VALIDATION: splits.validation}, []
    lost: dict[str, list[int]] = {split: [] for split in parts}
    for leak, positions in world().once(lambda: find_leaks(splits, between)):
        new = sorted(set(positions) - set(lost[leak.other]))
        lost[leak.other] += new
        found.append(replace(leak, left_out=len(new)))
    if line := sentence(found):
        note(
            splits.train.name,
            line,
            [parts[split].keys[position] for split in parts for position in sorted(lost[split])],
        )
    kept = {split: _left(parts[split], lost[split]) for split in parts}
    _check_classes(splits.train, kept[TRAIN])
    return replace(splits, **kept, leaks=(*(splits.leaks or ()), *found))


def find_leaks(
    splits: DatasetSplits, between: Sequence[tuple[str, str]] = EVALUATED_IN
) -> list[tuple[Leak, tuple[int, ...]]]:
    """Each leak, with the positions of its images in `Leak.other`. Files are compared by their bytes (see `contents_of`)."""
    used = dict.fromkeys(split for pair in between for split in pair)
    parts = {split: getattr(splits, split) for split in used if len(getattr(splits, split))}
    contents = contents_of(parts) if len(parts) > 1 else {}
    found = []
    for overlap in overlaps(contents, between):
        first, second = parts.get(overlap.other), parts.get(overlap.split)
        pairs = tuple(
            (_named(first, overlap.other, position), _named(second, overlap.split, twin))
            for position, twin in overlap.pairs
        )
        total = 0 if second is None else len(second)
        found.append((Leak(overlap.split, overlap.other, len(overlap.within), total, pairs), overlap.outside))
    return found


def sentence(leaks: Sequence[Leak]) -> str:
    """What the leaks are, and what `dataset.drop_leaks` does or did about them, as one line; empty without any."""
    leaks = [leak for leak in leaks if leak.count]
    if not leaks:
        return ""
    told = ", and ".join(map(_told, leaks))
    others = list(dict.fromkeys(leak.other for leak in leaks))
    if any(leak.left_out for leak in leaks):
        out = [
            counted(number, f"{WORDS[other]} image")
            for other in others
            if (number := sum(leak.left_out for leak in leaks if leak.other == other))
        ]
        return f"{told}; dataset.drop_leaks=true leaves out {' and '.join(out)}"
    return f"{told}; dataset.drop_leaks=true leaves them out of {' and '.join(WORDS[other] for other in others)}"


def leak_counts(leaks: Sequence[Leak]) -> dict[str, int]:
    """The numbers as `results.json` holds them: `test_in_train` is how many test images are also training images.

    `left_out` is the number of training and validation images that are left out.
    """
    counts = {f"{split}_in_{other}": 0 for split, other in EVALUATED_IN} | {"left_out": 0}
    for leak in leaks:
        counts[f"{leak.split}_in_{leak.other}"] += leak.count
        counts["left_out"] += leak.left_out
    return counts


def _told(leak: Leak) -> str:
    more = f"; and {counted(len(leak.pairs) - NAMED, 'pair')} more" if len(leak.pairs) > NAMED else ""
    pairs = "; ".join(f"{first} = {second}" for first, second in leak.pairs[:NAMED])
    are = "is" if leak.count == 1 else "are"
    return (
        f"{leak.count:,} of {leak.total:,} {WORDS[leak.split]} images {are} also among the {WORDS[leak.other]} images "
        f"({pairs}{more})"
    )


def _named(images: LabelledImages, split: str, position: int) -> str:
    return f"{split} {images.class_names[images.labels[position]]}/{images.keys[position]}"


def _left(images: LabelledImages, lost: Sequence[int]) -> LabelledImages:
    return images.select(np.setdiff1d(np.arange(len(images)), lost)) if lost else images


def _check_classes(before: LabelledImages, left: LabelledImages) -> None:
    gone = [before.class_names[label] for label in np.setdiff1d(before.labels, left.labels)]
    if gone:
        raise UserError(
            f"dataset {before.name}: dataset.drop_leaks=true leaves no training image of {counted(len(gone), 'class')} "
            f"({some(gone)}), because all of them are also validation or test images"
        )
