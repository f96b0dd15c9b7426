"""Keeps all images that were made from the same real image on one side of a split."""

from distdiff.data.images import LabelledImages
from distdiff.data.notes import note
from distdiff.wording import counted


def apart(rest: LabelledImages, carved: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """The images of `rest` and of `carved`, without images that share an origin with the other side.

    First, `rest` loses the images that have an origin among the groups of `carved`. Then `carved` loses the images that
    still share an origin with an image in `rest`. Notes how many images are left out.
    """
    if rest.origins is None or not len(carved):
        return rest, carved
    taken = set(carved.groups.tolist())
    kept = rest.select([i for i, origins in enumerate(rest.origins) if taken.isdisjoint(origins)])
    used = {origin for origins in kept.origins for origin in origins}
    own = carved.select([i for i, origins in enumerate(carved.origins) if used.isdisjoint(origins)])
    if lost := len(rest) + len(carved) - len(kept) - len(own):
        words = f"{counted(lost, 'image')} left out of a split: made of images that are on both sides of it"
        note(rest.name, words)
    return kept, own
