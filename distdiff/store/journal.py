"""Journals of finished images: one line of JSON per image, one file per share; they become metadata.parquet at the end."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
JOURNALS = ".journal-*.jsonl"


def journal_of(directory: Path, share: str) -> Path:
    """The journal of the share with this name."""
    return directory / JOURNALS.replace("*", share)


def append_rows(journal: Path, rows: Iterable[Row]) -> None:
    """Adds one line per row, and starts a new line even if a crash cut off the last one."""
    with open(journal, "a+b") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        torn = file.read(1) not in (b"", b"\n")
        file.write(("\n" if torn else "").encode() + _lines(rows))


def replace_rows(journal: Path, rows: Iterable[Row]) -> None:
    """Rewrites the journal so that it holds only these rows."""
    aside = journal.with_name(f"{journal.name}.part")
    aside.write_bytes(_lines(rows))
    os.replace(aside, journal)


def read_rows(journal: Path) -> Iterator[Row]:
    """A journal's rows; a line cut off by a crash is left out, and its image is made again."""
    with open(journal, "rb") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def read_journals(directory: Path) -> Iterator[Row]:
    """The rows of all of a directory's journals; the images of some rows may be missing."""
    for path in sorted(directory.glob(JOURNALS)):
        yield from read_rows(path)


def _lines(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
