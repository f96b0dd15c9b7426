"""Compares two expanded datasets, whose file names and metadata must be equal.

Computed numbers in the metadata, such as energies, may differ. Pixels may differ by at most 1 of 255 levels.
"""

from pathlib import Path

import numpy as np
import pyarrow

from distdiff.store.columns import COLUMNS, METADATA, further_columns
from distdiff.store.reading import read_expanded
from distdiff.store.tables import read_table

EXACT = (*COLUMNS, "group", "gradient_finite", "prompt")


def content_differences(first: Path, second: Path) -> list[str]:
    """The differences between two complete directories, in words. The list is empty if the directories are equal.

    The division of images into shards is not compared. In image folders, the names of all files are compared, including
    files that are not part of the dataset.
    """
    tables = [read_table(folder / METADATA) for folder in (first, second)]
    if not any("shard" in table.column_names for table in tables):
        files = [
            {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            for folder in (first, second)
        ]
        if files[0] != files[1]:
            return [f"files differ: {', '.join(sorted(files[0] ^ files[1])[:4])}"]
    names = [{*EXACT, *further_columns(table.column_names)}.intersection(table.column_names) for table in tables]
    problems = [f"metadata differ: only one of them has the column {name}" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        values = [table[name] for table in tables]
        approximate = name not in EXACT and pyarrow.types.is_floating(values[0].type)
        if not approximate and values[0] != values[1]:
            problems.append(f"metadata differ: {name}")
    if problems:
        return problems
    images = [read_expanded(folder) for folder in (first, second)]
    for position, name in enumerate(images[0].keys):
        one, two = (np.asarray(each.image(position)).astype(int) for each in images)
        if one.shape != two.shape or np.abs(one - two).max() > 1:
            problems.append(f"pixels differ: {name}")
    return problems
