"""Whether two expanded datasets are the same, as far as is promised: names, metadata, and pixels within 1 of 255 levels."""

from pathlib import Path

import numpy as np
import pyarrow.parquet

from distdiff.store.columns import METADATA
from distdiff.store.directory import read_expanded

EXACT = ("file_name", "label", "class_name", "source", "copy", "seed", "strength", "group", "gradient_finite", "prompt")


def differences(first: Path, second: Path) -> list[str]:
    """What is not the same in two complete directories, in words; empty where nothing is.

    Shards may be cut differently; of folders of images every file is compared by its name, strays and all.
    """
    tables = [pyarrow.parquet.read_table(folder / METADATA) for folder in (first, second)]
    if not any("shard" in table.column_names for table in tables):
        files = [
            {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            for folder in (first, second)
        ]
        if files[0] != files[1]:
            return [f"files differ: {', '.join(sorted(files[0] ^ files[1])[:4])}"]
    columns = [name for name in EXACT if name in tables[0].column_names]
    if problems := [f"metadata differ: {name}" for name in columns if tables[0][name] != tables[1][name]]:
        return problems
    images = [read_expanded(folder) for folder in (first, second)]
    for position, name in enumerate(images[0].keys):
        one, two = (np.asarray(each.image(position)).astype(int) for each in images)
        if one.shape != two.shape or np.abs(one - two).max() > 1:
            problems.append(f"pixels differ: {name}")
    return problems
