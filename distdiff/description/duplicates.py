"""Finds exact and near duplicates of images, within and across classes and splits."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from distdiff.data.overlaps import Overlap, overlaps
from distdiff.description.looking import Look
from distdiff.description.similarity import MAX_PAIRS, near_pairs


@dataclass(frozen=True)
class Pair:
    """Two images with the same pixels, or two similar images.

    `distance` is the Hamming distance between the hashes of two similar images, and None if the pixels are the same. If
    the pixels are the same, `first` is the image that comes first in the order of splits.
    """

    first: Look
    second: Look
    distance: int | None


@dataclass(frozen=True)
class Leak:
    """The images of the split `split` that are also in the split `other`.

    `exact` is the number of images of `split` that have the same pixels as an image of `other`. `near` is the number of
    the remaining images of `split` that are similar to an image of `other`. `pairs` has one pair for each distinct
    picture counted in `exact` or `near`: first the pairs of images with the same pixels, then those of similar images.
    """

    split: str
    other: str
    exact: int
    near: int
    pairs: tuple[Pair, ...]


class Duplicates:
    """All duplicates among the readable images `looks`, which are in the order of splits.

    All images with the same pixels count as one picture. `near` has the pairs of similar pictures, as two indices into
    `pictures` and the distance between the hashes. `cut_short` is True if the search stopped at `MAX_PAIRS` pairs.
    """

    def __init__(self, looks: Sequence[Look], distance: int, difference: float) -> None:
        by_pixels: dict[bytes, list[Look]] = {}
        self.of_split: dict[str, list[Look]] = {}
        for look in looks:
            by_pixels.setdefault(look.pixels, []).append(look)
            self.of_split.setdefault(look.split, []).append(look)
        self.pictures = list(by_pixels.values())
        kept = [looks[0] for looks in self.pictures]
        hashes = np.array([look.bits for look in kept], dtype=np.uint64)
        near, distances = near_pairs(hashes, np.stack([look.small for look in kept]), distance, difference)
        self.near = list(zip(near[:, 0].tolist(), near[:, 1].tolist(), distances.tolist(), strict=True))
        self.cut_short = len(self.near) >= MAX_PAIRS

    @property
    def repeated(self) -> list[list[Look]]:
        """The groups of two or more images with the same pixels."""
        return [looks for looks in self.pictures if len(looks) > 1]

    def conflicts(self) -> list[list[Look]]:
        """The groups in `repeated` whose images have more than one class."""
        return [looks for looks in self.repeated if len({look.label for look in looks}) > 1]

    def near_conflicts(self) -> int:
        """The number of pairs in `near` whose two pictures have no class in common."""
        labels = [{look.label for look in looks} for looks in self.pictures]
        return sum(labels[a].isdisjoint(labels[b]) for a, b, _ in self.near)

    def leaks(self) -> list[Leak]:
        """For each pair of splits in `EVALUATED_IN`, the images of the first split that are also in the second split."""
        contents = {split: [look.pixels for look in looks] for split, looks in self.of_split.items()}
        return [self._leak(overlap) for overlap in overlaps(contents)]

    def _leak(self, exact: Overlap) -> Leak:
        """A leak of which the images with the same pixels are those of `exact`."""
        firsts, seconds = (self.of_split.get(split, []) for split in (exact.other, exact.split))
        pairs = [Pair(firsts[first], seconds[second], None) for first, second in exact.pairs]
        within, outside = ([_of(looks, name) for looks in self.pictures] for name in (exact.split, exact.other))
        near: set[int] = set()
        for a, b, distance in self.near:
            for mine, its in ((a, b), (b, a)):
                if within[mine] and not outside[mine] and outside[its] and mine not in near:
                    near.add(mine)
                    pairs.append(Pair(outside[its][0], within[mine][0], distance))
        similar = sum(len(within[number]) for number in near)
        return Leak(exact.split, exact.other, len(exact.within), similar, tuple(pairs))

    def pairs(self) -> list[Pair]:
        """All pairs of duplicates, first those with the same pixels, then the similar ones.

        Of several images with the same pixels, each later image is paired with the first. Two similar pictures give one
        pair for each combination of a split that has the one picture and a split that has the other.
        """
        found = [Pair(looks[0], look, None) for looks in self.repeated for look in looks[1:]]
        firsts = [list({look.split: look for look in reversed(looks)}.values()) for looks in self.pictures]
        for a, b, distance in self.near:
            found += [Pair(first, second, distance) for first, second in product(firsts[a], firsts[b])]
        return found


def write_pairs(file: Path, pairs: Sequence[Pair], class_names: Sequence[str]) -> None:
    """Writes a CSV file with one row for each pair.

    The column `distance` has the distance between the hashes, and is empty if the two images have the same pixels.
    """
    sides = [(side, name) for side in ("first", "second") for name in ("split", "class", "key")]
    with open(file, "w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["kind", "distance", *(f"{side}_{name}" for side, name in sides)])
        for pair in pairs:
            kind, distance = ("exact", "") if pair.distance is None else ("near", pair.distance)
            cells = [(look.split, class_names[look.label], look.key) for look in (pair.first, pair.second)]
            writer.writerow([kind, distance, *cells[0], *cells[1]])


def _of(looks: Sequence[Look], split: str) -> list[Look]:
    return [look for look in looks if look.split == split]
