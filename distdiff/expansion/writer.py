"""Puts expanded images on disk as they come, each whole or not at all, and notes what is done."""

import json
import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from distdiff.data.images import to_image
from distdiff.expansion.plan import WorkItem
from distdiff.expansion.share import Share
from distdiff.expansion.synthesis import Synthesized

JOURNALS = ".journal-*.jsonl"


class ExpandedWriter(BasePredictionWriter):
    """Writes each image aside and renames it, then appends its metadata row to the share's journal."""

    def __init__(self, directory: Path, share: Share) -> None:
        super().__init__(write_interval="batch")
        self.directory = directory
        self.journal = directory / JOURNALS.replace("*", share.name)

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
        rows = []
        for position, item in enumerate(batch):
            path = self.directory / item.file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.part")
            to_image(prediction.images[position]).save(aside, format="PNG")
            os.replace(aside, path)
            rows.append(metadata_row(item) | {name: column[position] for name, column in prediction.columns.items()})
        with open(self.journal, "a", encoding="utf-8") as journal:
            journal.writelines(json.dumps(row) + "\n" for row in rows)


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


def read_journals(directory: Path) -> dict[str, dict[str, Any]]:
    """Rows by file name, of images that are there; a line torn by a crash is left out, and its image made again."""
    rows = {}
    for path in sorted(directory.glob(JOURNALS)):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if (directory / row["file_name"]).is_file():
                rows[row["file_name"]] = row
    return rows
