"""Writes expanded images to disk as they are made, each one whole or not at all, and records which of them are done."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image

from distdiff.data.pixels import to_images
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized
from distdiff.store.columns import check_columns
from distdiff.store.formats.base import Storage
from distdiff.store.journal import Row
from distdiff.store.shares import OUTPUT_DIR, Share
from distdiff.writing import writing_to

COMPANIONS = "companions"  # this metadata column holds the file names of all images that were made together
ENCODERS = 4  # threads that encode images while a device makes the next batch


class ExpandedWriter(BasePredictionWriter):
    """Encodes the images of a batch and hands them to `storage` together with their metadata rows.

    If images are made on a GPU, this is done in threads, while the GPU makes the next batch. A batch is begun only when
    the batch before the last is stored, so that at most one batch waits in memory.
    """

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
        # None: in threads unless the images are made on the CPU, where there is no device to wait for
        self.in_threads: bool | None = None
        self._storing = ThreadPoolExecutor(1, "store")
        self._encoding = ThreadPoolExecutor(ENCODERS, "encode")
        self._pending: Future[None] | None = None

    def setup(self, trainer: L.Trainer, *_: object, **__: object) -> None:
        if self.in_threads is None:
            self.in_threads = trainer.strategy.root_device.type != "cpu"
        with writing_to(self.directory, OUTPUT_DIR):
            self.storage.begin(self.share.name)

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
        rows, more = {}, {COMPANIONS: [item.file_name for item in batch]} if self.together else {}
        for position, item in enumerate(batch):
            if position not in prediction.failures:
                own = {name: column[position] for name, column in prediction.columns.items()}
                rows[position] = metadata_row(item) | own | more
        images = to_images(prediction.images)
        finished = list(rows.values()), [images[position] for position in rows]
        if not self.in_threads:
            self.store(*finished)
            return
        self.wait()
        self._pending = self._storing.submit(self.store, *finished)

    def store(self, rows: Sequence[Row], images: Sequence[Image.Image]) -> None:
        """Encodes the images and stores them with their metadata rows."""
        encoded = self.encode(images)
        with writing_to(self.directory, OUTPUT_DIR):
            self.storage.write(list(zip(rows, encoded, strict=True)))

    def encode(self, images: Sequence[Image.Image]) -> list[bytes]:
        encode = self.storage.options.encoding.encode
        return list(self._encoding.map(encode, images) if self.in_threads else map(encode, images))

    def wait(self) -> None:
        """Waits until the last batch is stored, and raises the error that storing it ended with."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.wait()
        self._end()

    def on_exception(self, *_: object) -> None:
        with suppress(Exception):  # the expansion ends with an error already
            self.wait()
        self._end()

    def _end(self) -> None:
        self._encoding.shutdown()
        self._storing.shutdown()


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
