"""Puts expanded images on disk as they come, each whole or not at all, and notes what is done."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from distdiff.data.images import to_image
from distdiff.expansion.plan import WorkItem
from distdiff.expansion.share import Share
from distdiff.expansion.synthesis import Synthesized

JOURNALS = ".journal-*.jsonl"
ASIDES = ".unfinished"  # one folder for images that are being written: what a crash leaves there goes with it


class ExpandedWriter(BasePredictionWriter):
    """Writes a batch's images aside, appends their metadata rows to the share's journal, and renames them into place."""

    def __init__(self, directory: Path, share: Share) -> None:
        super().__init__(write_interval="batch")
        self.directory = directory
        self.journal = directory / JOURNALS.replace("*", share.name)
        self.asides = directory / ASIDES / share.name

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Synthesized,
        batch_indices: Any,
        batch: list[WorkItem],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        finished, rows = [], []
        for position, item in enumerate(batch):
            if position in prediction.failures:
                continue
            path = self.directory / item.file_name
            path.parent.mkdir(exist_ok=True)  # without parents: a directory that was removed must not half come back
            aside = self.asides / f"{position}.png"
            to_image(prediction.images[position]).save(aside, format="PNG")
            finished.append((aside, path))
            rows.append(metadata_row(item) | {name: column[position] for name, column in prediction.columns.items()})
        # The rows first: a row counts only if its image is there, so an image that is there has always got one.
        append_rows(self.journal, rows)
        for aside, path in finished:
            os.replace(aside, path)

    def setup(self, *_: object, **__: object) -> None:
        self.asides.parent.mkdir(exist_ok=True)
        self.asides.mkdir(exist_ok=True)


def metadata_row(item: WorkItem) -> dict[str, Any]:
    """The columns that every method has."""
    return {
        "file_name": item.file_name,
        "label": item.label,
        "class_name": item.class_name,
        "source": item.source,
        "copy": item.copy,
        "seed": item.seed,
        "strength": item.strength,
    }


def append_rows(journal: Path, rows: list[dict[str, Any]]) -> None:
    """Adds a line of JSON a row, on a line of its own even where a crash tore the last one."""
    with open(journal, "a+b") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        torn = file.read(1) not in (b"", b"\n")
        file.write(("\n" if torn else "").encode() + "".join(json.dumps(row) + "\n" for row in rows).encode())


def read_journals(directory: Path) -> dict[str, dict[str, Any]]:
    """Rows by file name, of images that are there; a line torn by a crash is left out, and its image made again."""
    rows = (row for path in sorted(directory.glob(JOURNALS)) for row in read_rows(path))
    return {row["file_name"]: row for row in rows if (directory / row["file_name"]).is_file()}


def read_rows(journal: Path) -> Iterator[dict[str, Any]]:
    """The rows of a journal, without lines that a crash tore."""
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue
