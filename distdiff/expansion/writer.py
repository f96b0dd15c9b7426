"""Puts expanded images on disk as they come, each whole or not at all, and notes what is done."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from distdiff.expansion.plan import WorkItem
from distdiff.expansion.synthesis import Synthesized
from distdiff.store.columns import check_columns
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.shares import OUTPUT_DIR, Share
from distdiff.writing import writing_to


class ExpandedWriter(BasePredictionWriter):
    """Hands a batch's images, as files are to hold them, and their metadata rows to the directory's storage."""

    def __init__(self, directory: Path, share: Share) -> None:
        super().__init__(write_interval="batch")
        self.directory = directory
        self.storage = ExpandedDirectory(directory).storage
        self.share = share

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
        check_columns(prediction.columns)
        encoding, finished = self.storage.options.encoding, []
        for position, item in enumerate(batch):
            if position in prediction.failures:
                continue
            row = metadata_row(item) | {name: column[position] for name, column in prediction.columns.items()}
            finished.append((row, encoding.encode(prediction.images[position])))
        with writing_to(self.directory, OUTPUT_DIR):
            self.storage.write(finished)

    def setup(self, *_: object, **__: object) -> None:
        with writing_to(self.directory, OUTPUT_DIR):
            self.storage.begin(self.share.name)


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
