"""Which images of one split are also in another split, by what their content is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION

EVALUATED_IN = ((TEST, TRAIN), (VALIDATION, TRAIN), (TEST, VALIDATION))  # (a split to evaluate on, one with its images)


@dataclass(frozen=True)
class Overlap:
    """The positions `within` of the images of `split` that are also in `other`, where they have the positions `outside`.

    `pairs` holds one pair (position in `other`, position in `split`) for each distinct content, in the order of `other`.
    """

    split: str
    other: str
    within: tuple[int, ...]
    outside: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]


def overlaps(
    contents: Mapping[str, Sequence[bytes | None]], between: Sequence[tuple[str, str]] = EVALUATED_IN
) -> Iterator[Overlap]:
    """For each pair of splits in `between`, the images of both with the same content.

    `contents[split][i]` is equal for images with the same content. None is equal to nothing, not even to None. A split
    that `contents` lacks has no images.
    """
    first = {split: _first_positions(found) for split, found in contents.items()}
    for split, other in between:
        both = first.get(split, {}).keys() & first.get(other, {}).keys()
        within, outside = (
            tuple(position for position, content in enumerate(contents.get(name, ())) if content in both)
            for name in (split, other)
        )
        pairs = sorted((first[other][content], first[split][content]) for content in both)
        yield Overlap(split, other, within, outside, tuple(pairs))


def _first_positions(contents: Sequence[bytes | None]) -> dict[bytes, int]:
    return {content: position for position, content in reversed(list(enumerate(contents))) if content is not None}
