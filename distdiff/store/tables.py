"""Reads the tables of an expanded dataset. A table that cannot be read is one line with its path and the cause."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from distdiff.errors import first_line
from distdiff.placeholders import placeholder
from distdiff.texts import UnreadableFile


def read_table(path: Path, needed: Sequence[str] = (), **options: Any) -> pyarrow.Table:
    """The table of a parquet file. `options` are those of pyarrow.

    Raises `UnreadableFile`, also if the table lacks one of the columns `needed`.
    """
    try:
        _refuse_placeholder(path)
        table = pyarrow.parquet.read_table(path, **options)
        table.validate(full=True)  # else a damaged text would fail only where it is used
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UnreadableFile(path, f"it cannot be read ({first_line(error)})") from None
    if lacking := [name for name in needed if name not in table.column_names]:
        raise UnreadableFile(path, f"it has no column {lacking[0]}, so it is another table")
    return table


def read_schema(path: Path) -> pyarrow.Schema:
    """The columns of a parquet file. Raises `UnreadableFile`."""
    try:
        _refuse_placeholder(path)
        return pyarrow.parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UnreadableFile(path, f"it cannot be read ({first_line(error)})") from None


def _refuse_placeholder(path: Path) -> None:
    if (instead := placeholder(path)) is not None:
        raise UnreadableFile(path, instead)
