"""`dataset=expanded`: one expanded dataset, or several that are merged, used like any other dataset."""

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

# The suffixes that expansions and merges append to a source's key. Copies of copies have several suffixes.
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
    """Reads `root`, a directory or a list of directories, and splits off test images and then validation images.

    All copies of a source, and copies of these copies, are in the same split. `test_fraction` and `validation_fraction`
    are fractions of each class's sources. An image made from several sources is left out if its sources are in
    different splits.
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
    """The key of the real image that `source` was made from, or `source` itself if that is a real image's key.

    >>> origin("a.png"), origin("a.png__0003.png"), origin("a.png__0003-2.jpg__0000.png")
    ('a.png', 'a.png', 'a.png')
    """
    return _COPY.sub("", source)
