"""Candidates, the images that a selection chooses from, stored in `.candidates/` of an expanded dataset's directory."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow
import pyarrow.parquet

from distdiff.store.columns import PLACES, class_names_of, column_values, metadata_features
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.formats.base import ASIDES
from distdiff.store.formats.imagefolder import ImageFolder
from distdiff.store.journal import JOURNALS, Row, read_journals
from distdiff.store.options import IMAGEFOLDER
from distdiff.store.tables import read_table
from distdiff.texts import read_json

FOLDER, TABLE, KEPT = ".candidates", "candidates.parquet", "kept.json"
BATCH = 64  # images moved at a time


class CandidateStore:
    """Stores candidates as files in class folders, whether or not the dataset's own format has shards.

    The candidates' metadata rows are first written to journals. `finish` then writes all rows into one table.
    """

    def __init__(self, directory: ExpandedDirectory) -> None:
        self.directory = directory
        self.path = directory.path / FOLDER
        options = replace(directory.storage.options, format=IMAGEFOLDER, shard_size=None)
        self.storage = ImageFolder(self.path, options, directory.storage.declared)

    def begin(self, share: str) -> None:
        """Prepares for writing the images of the share with the name `share`."""
        self.path.mkdir(exist_ok=True)
        self.storage.begin(share)

    def rows(self) -> dict[str, Row]:
        """The metadata rows of the stored candidates, by file name."""
        if not self.path.is_dir():
            return {}
        table = self.path / TABLE
        rows = read_table(table).to_pylist() if table.is_file() else []
        return self.storage.present([*rows, *read_journals(self.path)])

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def kept(self) -> dict[str, Any] | None:
        """The selection's choice, or None if the selection has not chosen yet.

        The choice has the form `{"factor": <expansion.factor>, "names": [<file name>, …]}`.
        """
        path = self.path / KEPT
        return read_json(path) if os.path.lexists(path) else None

    def note_kept(self, kept: dict[str, Any]) -> None:
        aside = self.path / f".{KEPT}.part"
        aside.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
        os.replace(aside, self.path / KEPT)

    def forget_kept(self) -> None:
        (self.path / KEPT).unlink(missing_ok=True)

    def hand_over(self, names: Sequence[str], share: str) -> None:
        """Moves the candidates `names` into the dataset's own storage.

        An image that is already in that storage is only removed from the candidates.
        """
        rows, there = self.rows(), self.directory.rows()
        missing = [rows[name] for name in names if name in rows and name not in there]
        read = self.storage.reader(missing)
        self.directory.storage.begin(share)
        for batch in in_batches(missing, read):
            self.directory.storage.write(batch)
        self.remove(name for name in names if name in rows)

    def take_back(self, share: str) -> None:
        """Moves all of the dataset's images back to the candidates, as if none of them had been chosen yet."""
        with self.directory.locked():
            self.directory.storage.seal()
        there = self.rows()
        missing = [row for name, row in self.directory.rows().items() if name not in there]
        read = self.directory.storage.reader(missing)
        self.begin(share)
        for batch in in_batches(missing, read):
            self.storage.write(batch)
        self.directory.clear()

    def finish(self) -> None:
        """Writes the metadata rows of all candidates into one table, and removes the journals."""
        rows = sorted(self.rows().values(), key=lambda row: (row["copy"], row["file_name"]))
        features = metadata_features(class_names_of(self.directory.path), rows, self.storage.declared)
        aside = self.path / f".{TABLE}.part"
        pyarrow.parquet.write_table(pyarrow.table(column_values(rows, features), schema=features.arrow_schema), aside)
        os.replace(aside, self.path / TABLE)
        for journal in self.path.glob(JOURNALS):
            journal.unlink(missing_ok=True)
        shutil.rmtree(self.path / ASIDES, ignore_errors=True)

    def delete(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def reader(self, rows: Sequence[Row]) -> Callable[[int], bytes]:
        """A function that reads the image file of `rows[i]`.

        An image that was already moved to the dataset's storage is read from that storage.
        """
        here = self.rows()
        others = [row for row in rows if row["file_name"] not in here]
        own, given = self.storage.reader(list(rows)), self.directory.storage.reader(others)
        place = {row["file_name"]: number for number, row in enumerate(others)}

        def read(index: int) -> bytes:
            name = rows[index]["file_name"]
            return own(index) if name in here else given(place[name])

        return read


def in_batches(rows: Sequence[Row], read: Callable[[int], bytes]) -> Iterator[list[tuple[Row, bytes]]]:
    """Batches of metadata rows and images to write to another storage. `read(i)` returns the image of `rows[i]`."""
    for start in range(0, len(rows), BATCH):
        yield [(_without_place(rows[i]), read(i)) for i in range(start, min(start + BATCH, len(rows)))]


def _without_place(row: Row) -> Row:
    """The metadata row `row` without the columns that say where in a shard the image is stored."""
    return {name: value for name, value in row.items() if name not in PLACES}
