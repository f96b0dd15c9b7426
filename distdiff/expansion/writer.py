"""Writes expanded images to disk as they are made, each one whole or not at all, and records which of them are done."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized
from distdiff.store.columns import check_columns
from distdiff.store.formats.base import Storage
from distdiff.store.shares import OUTPUT_DIR, Share
from distdiff.writing import writing_to

COMPANIONS = "companions"  # this metadata column holds the file names of all images that were made together


class ExpandedWriter(BasePredictionWriter):
    """Encodes the images of a batch and hands them to `storage` together with their metadata rows."""

    def __init__(self, directory: Path, storage: Storage, share: Share, together: bool = False) -> None:
        """`storage` is the directory's own storage or, for candidates, a storage below the directory.

        `together`: whether the images of a batch depend on each other; if so, each metadata row names all images of its
        batch.
        """
        super().__init__(write_interval="batch")
        self.directory = directory
        self.storage = storage
        self.share = share
        self.together = together

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
        check_columns(prediction.columns, self.storage.declared)
        encoding, finished = self.storage.options.encoding, []
        more = {COMPANIONS: [item.file_name for item in batch]} if self.together else {}
        for position, item in enumerate(batch):
            if position in prediction.failures:
                continue
            row = metadata_row(item) | {name: column[position] for name, column in prediction.columns.items()} | more
            finished.append((row, encoding.encode(prediction.images[position])))
        with writing_to(self.directory, OUTPUT_DIR):
            self.storage.write(finished)

    def setup(self, *_: object, **__: object) -> None:
        with writing_to(self.directory, OUTPUT_DIR):
            self.storage.begin(self.share.name)


def metadata_row(item: WorkItem) -> dict[str, Any]:
    """One image's entries in the metadata columns that are common to all methods, by column name."""
    shares = item.soft_label or ((item.label, 1.0),)
    return {
        "file_name": item.file_name,
        "label": item.label,
        "class_name": item.class_name,
        "source": item.source,
        "sources": list(item.sources),
        "copy": item.copy,
        "seed": item.seed,
        "strength": item.strength,
        "soft_labels": [label for label, _ in shares],
        "soft_weights": [weight for _, weight in shares],
    }
