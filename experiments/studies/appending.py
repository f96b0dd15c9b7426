"""Tables of studies as CSV files, to which finished lines are appended, so that a study goes on after a stop."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def append(table: Path, columns: Sequence[str], lines: Iterable[Mapping[str, object]]) -> None:
    """Appends lines, each with a value for every column, to a table that is begun if it is not there."""
    is_new = not table.exists()
    with open(table, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        if is_new:
            writer.writeheader()
        writer.writerows(lines)


def read(table: Path) -> list[dict[str, str]]:
    """The lines of a table; none of one that is not there."""
    if not table.exists():
        return []
    with open(table, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
