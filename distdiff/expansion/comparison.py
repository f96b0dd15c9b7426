"""Whether two expanded datasets are the same, as far as is promised: names, metadata, and pixels within 1 of 255 levels."""

from pathlib import Path

import numpy as np
import pyarrow.parquet
from PIL import Image

from distdiff.expansion.directory import METADATA

EXACT = ("file_name", "label", "class_name", "source", "copy", "seed", "strength", "group", "gradient_finite")


def differences(first: Path, second: Path) -> list[str]:
    """What is not the same in two directories, in words; empty where nothing is."""
    files = [
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (first, second)
    ]
    if files[0] != files[1]:
        return [f"files differ: {', '.join(sorted(files[0] ^ files[1])[:4])}"]
    tables = [pyarrow.parquet.read_table(folder / METADATA) for folder in (first, second)]
    columns = [name for name in EXACT if name in tables[0].column_names]
    problems = [f"metadata differ: {name}" for name in columns if tables[0][name] != tables[1][name]]
    for name in sorted(name for name in files[0] if name.endswith(".png")):
        levels = [np.asarray(Image.open(folder / name)).astype(int) for folder in (first, second)]
        if np.abs(levels[0] - levels[1]).max() > 1:
            problems.append(f"pixels differ: {name}")
    return problems
