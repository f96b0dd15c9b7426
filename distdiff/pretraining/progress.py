"""How far a pretraining has come: a Lightning checkpoint for each stage, from which the same command goes on."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from distdiff.caching.fingerprint import fingerprint
from distdiff.console.progress import console
from distdiff.errors import first_line
from distdiff.locking import held_once_free
from distdiff.writing import writing_to

FOLDER = "pretraining"
EVERY = timedelta(minutes=5)  # a process that is killed without a signal that it can answer loses at most so much


class Progress:
    """The checkpoints `<cache_dir>/pretraining/<fingerprint>/<stage>.ckpt` of one pretraining.

    `ingredients` is everything that can change the trained pipeline.
    """

    def __init__(self, cache_dir: Path | str, ingredients: Mapping[str, Any]) -> None:
        self.cache_dir = Path(cache_dir)
        self.folder = self.cache_dir / FOLDER / fingerprint(ingredients)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Inside the block, no other process trains the same pipeline. The checkpoints are removed after the block.

        They are kept if an error or a signal ends the block.
        """
        waiting = "another process trains the same pipeline; waiting for it"
        with ExitStack() as holding:
            with self._writing():
                self.folder.mkdir(parents=True, exist_ok=True)
                holding.enter_context(held_once_free(f"{self.folder}.lock", waiting))
            yield
            shutil.rmtree(self.folder, ignore_errors=True)

    def fit(self, stage: str, trainer: L.Trainer, module: L.LightningModule, loader: Any, keep: bool) -> None:
        """Trains `module` to the end, from the checkpoint of the stage if there is one.

        `keep` says whether a checkpoint of the finished stage is saved, for use by a later stage.
        """
        path = self.folder / f"{stage}.ckpt"
        step = _step_of(path)
        if step:
            console.print(f"pretrain {stage} goes on from step {step:,} of {trainer.max_steps:,}")
        trainer.fit(module, loader, ckpt_path=path if step else None, weights_only=True)
        if keep and step != trainer.max_steps:
            with self._writing():
                trainer.save_checkpoint(path)

    def callback(self, stage: str) -> ModelCheckpoint:
        """Saves the checkpoint of a stage at intervals, and when a signal or an error ends the training."""
        return Checkpoints(
            self._writing,
            dirpath=self.folder,
            filename=stage,
            train_time_interval=EVERY,
            save_on_exception=True,
            enable_version_counter=False,
        )

    def _writing(self) -> AbstractContextManager[None]:
        return writing_to(self.cache_dir, "paths.cache_dir")


class Checkpoints(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, which saves inside the context that `writing` returns."""

    def __init__(self, writing: Callable[[], AbstractContextManager[None]], **options: Any) -> None:
        super().__init__(**options)
        self.writing = writing

    def on_train_batch_end(self, *arguments: Any, **keywords: Any) -> None:
        with self.writing():
            super().on_train_batch_end(*arguments, **keywords)

    def on_exception(self, *arguments: Any, **keywords: Any) -> None:
        with self.writing():
            super().on_exception(*arguments, **keywords)


def _step_of(path: Path) -> int:
    """The number of steps after which a checkpoint was saved; 0 if there is none that can be read."""
    if not path.is_file():
        return 0
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception as error:  # whatever the file holds, the training can begin again
        console.print(f"{path} cannot be read ({first_line(error)}); the training begins again")
        return 0
