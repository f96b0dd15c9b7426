"""Journals of finished images: one file per share, with one line of JSON per image.

A finished dataset has `metadata.parquet` instead of journals.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
JOURNALS = ".journal-*.jsonl"


def journal_of(directory: Path, share: str) -> Path:
    """The journal file of the share with the name `share`."""
    return directory / JOURNALS.replace("*", share)


def append_rows(journal: Path, rows: Iterable[Row]) -> None:
    """Appends one line per row. If a crash cut off the journal's last line, the rows start on a new line."""
    with open(journal, "a+b") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        torn = file.read(1) not in (b"", b"\n")
        file.write(("\n" if torn else "").encode() + _lines(rows))


def replace_rows(journal: Path, rows: Iterable[Row]) -> None:
    """Rewrites the journal so that it holds only `rows`."""
    aside = journal.with_name(f"{journal.name}.part")
    aside.write_bytes(_lines(rows))
    os.replace(aside, journal)


def read_rows(journal: Path) -> Iterator[Row]:
    """The rows of a journal. A line that a crash cut off is left out, so that its image is made again."""
    with open(journal, "rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def read_journals(directory: Path) -> Iterator[Row]:
    """The rows of all of a directory's journals, including rows whose images do not exist."""
    for path in sorted(directory.glob(JOURNALS)):
        yield from read_rows(path)


def _lines(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
