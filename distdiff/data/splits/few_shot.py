"""Draws a given number of training images of every class, for few-shot studies."""

from collections.abc import Sequence

import numpy as np

from distdiff.data.images import LabelledImages, Unreadable
from distdiff.wording import counted, printable


def draw_few_shot(
    pool: LabelledImages, per_class: int | None, seed: int, passed_over: Sequence[Unreadable] = ()
) -> LabelledImages:
    """Draws `per_class` images of every class without replacement, in an order set only by `pool` and `seed`.

    From a class with fewer images, all images are taken. If `per_class` is None, all images are used. An image in
    `passed_over` is skipped, and the next image in the order takes its place.
    """
    if per_class is None:
        return pool
    chosen, without = [], {(image.class_name, image.key) for image in passed_over}
    for label, name in enumerate(pool.class_names):
        positions = np.flatnonzero(pool.labels == label)
        generator = np.random.default_rng([seed, label])
        order = [p for p in generator.permutation(positions) if (name, pool.keys[p]) not in without]
        chosen.extend(sorted(order[:per_class]))
    return pool.select(chosen)


def classes_with_fewer(drawn: LabelledImages, per_class: int | None) -> str | None:
    """A sentence on the classes of which fewer than `per_class` images were there to draw; None if there are none."""
    if per_class is None:
        return None
    counts = np.bincount(drawn.labels, minlength=len(drawn.class_names))
    if not (fewer := int((counts < per_class).sum())):
        return None
    least = int(counts.argmin())
    example = f"{counted(int(counts[least]), 'image')} of {printable(drawn.class_names[least])}"
    return (
        f"dataset.per_class={per_class}: {fewer:,} of {counted(len(counts), 'class')} {'has' if fewer == 1 else 'have'} fewer "
        f"images, and all of them are used (the fewest: {example})"
    )
