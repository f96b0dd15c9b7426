"""`dataset=expanded`: an expanded dataset, or several, as a dataset of its own."""

import re

import numpy as np

from distdiff.data.config import TestFraction, ValidationFraction
from distdiff.data.images import DatasetSplits
from distdiff.data.splits.carving import TRAIN, complete
from distdiff.errors import UserError
from distdiff.store.encoding import EXTENSIONS
from distdiff.store.filtering import RowFilter
from distdiff.store.merging import merged
from distdiff.store.reading import finished_directories, select, sources_of

# What expansions and merges append to a source's key; repeated if an expanded dataset was expanded again.
_COPY = re.compile(rf"(__\d{{4,}}(-\d+)?\.({'|'.join(EXTENSIONS.values())}))+$")


def load(
    *,
    root: str | list[str] | None,
    where: str | None,
    validation_fraction: ValidationFraction,
    test_fraction: TestFraction,
    name: str,
    split_seed: int,
) -> DatasetSplits:
    """Reads `root`, one directory or several, and splits off test, then validation images, as from a folder.

    All copies of a source are in the same split; the fractions are of each class's sources. Copies of copies go with their
    original source. An image that was made from several sources is left out if these are in different splits.
    """
    if root is None:
        raise UserError("dataset.root has no value: give one, dataset.root=<directory of an expanded dataset>")
    selection = merged(select(finished_directories("dataset.root", root), RowFilter.of("dataset.where", where)))
    rows = selection.rows

    numbers: dict[str, int] = {}
    origins = []
    for row in rows:
        # An image that was made from no source is a group of its own.
        made_of = [origin(source) for source in sources_of(row)] or [f"//{row['file_name']}"]
        origins.append(tuple(numbers.setdefault(source, len(numbers)) for source in made_of))
    images = selection.images(
        name,
        groups=np.array([own for own, *_ in origins], dtype=np.int64),
        origins=tuple(origins) if any(len(made_of) > 1 for made_of in origins) else None,
        listing=f"dataset.root={root}",
    )
    return complete({TRAIN: images}, validation_fraction, test_fraction, split_seed)


def origin(source: str) -> str:
    """The key of the real image that a source was made from; the source itself if it is a real image.

    >>> origin("a.png"), origin("a.png__0003.png"), origin("a.png__0003-2.jpg__0000.png")
    ('a.png', 'a.png', 'a.png')
    """
    return _COPY.sub("", source)
