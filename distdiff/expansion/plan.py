"""The work list: every source image times every copy, each with its own seed."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distdiff.config.validation import strengths_of
from distdiff.data.images import LabelledImages
from distdiff.expansion.names import copy_name


@dataclass(frozen=True)
class WorkItem:
    """One image to make: `position` of its source among the originals, and what names and seeds it."""

    position: int
    copy: int
    seed: int
    strength: float
    label: int
    class_name: str
    source: str
    file_name: str


def plan_expansion(images: LabelledImages, factor: int, strength: Any, seed: int) -> list[WorkItem]:
    """All copies of all sources, copy by copy, so that a larger `factor` only appends."""
    items = []
    for copy in range(factor):
        for position in range(len(images)):
            label, source = int(images.labels[position]), images.keys[position]
            class_name = images.class_names[label]
            items.append(
                WorkItem(
                    position=position,
                    copy=copy,
                    seed=image_seed(seed, class_name, source, copy),
                    strength=copy_strength(strength, seed, class_name, source, copy),
                    label=label,
                    class_name=class_name,
                    source=source,
                    file_name=copy_name(class_name, source, copy),
                )
            )
    return items


def batches(items: list[WorkItem], batch_size: int, group: Callable[[float], float]) -> list[list[WorkItem]]:
    """Puts items of one group (equal `group(strength)`) into batches, in order."""
    groups: dict[float, list[WorkItem]] = {}
    for item in items:
        groups.setdefault(group(item.strength), []).append(item)
    return [items[i : i + batch_size] for items in groups.values() for i in range(0, len(items), batch_size)]


def image_seed(seed: int, class_name: str, source: str, copy: int | str, purpose: str = "image") -> int:
    """A 63-bit seed that depends on nothing but the study's seed, the class, the source's key and the copy.

    `purpose` separates streams: choosing a strength must not shift the noise that follows.
    """
    text = "\0".join(map(str, (seed, class_name, source, copy)))
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=purpose.encode())
    return int.from_bytes(digest.digest(), "big") >> 1


def copy_strength(strength: Any, seed: int, class_name: str, source: str, copy: int) -> float:
    """The number itself, the list's turn for this copy, or a uniform draw from `{low, high}`."""
    values = strengths_of(strength)
    if hasattr(strength, "keys"):
        low, high = values
        uniform = np.ldexp(image_seed(seed, class_name, source, copy, "strength"), -63)
        return float(low + (high - low) * uniform)
    return float(values[copy % len(values)])
