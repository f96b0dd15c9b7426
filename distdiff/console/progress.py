"""Lightning's callbacks that show how far a training or an expansion is."""

import contextlib
import sys
import threading
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar

from distdiff.console.output import console
from distdiff.console.stages import Bar, display
from distdiff.errors import RankLost
from distdiff.ranks.world import Counter, world

REFRESH = 0.5  # seconds


def announce(message: str) -> None:
    """Prints one line from any rank. Ranks that do not lead print to stderr, because their console is quiet."""
    if world().leads:
        console.print(message)
    else:
        print(f"rank {world().rank}: {message}", file=sys.stderr, flush=True)


class StageProgress(ProgressBar):
    """Shows Lightning's training steps on one line named `title`."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self._bar: Bar | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        before = trainer.global_step  # more than 0 if the training goes on from a checkpoint
        self._bar = display.begin(self.title, trainer.max_steps, "steps", before, counts=True)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._bar.update(trainer.global_step)  # a step may have several batches

    def on_train_end(self, *_: Any) -> None:
        self._stop()

    def on_exception(self, *_: Any) -> None:
        self._stop()

    def disable(self) -> None:
        """Does nothing. Lightning calls this method on ranks that do not lead, where the console is quiet anyway."""

    def print(self, *args: Any, **kwargs: Any) -> None:
        console.print(*args)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.end()
            self._bar = None


class SharedProgress(Callback):
    """Inside a `with` block, shows how many images all ranks together have made, on one line named `title`."""

    def __init__(self, title: str, total: int, counter: Counter) -> None:
        super().__init__()
        self.title, self.total, self.counter = title, total, counter
        self._bar: Bar | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Sequence[Any], *_: Any
    ) -> None:
        self.counter.add(len(batch))

    def __enter__(self) -> "SharedProgress":
        self._bar = display.begin(self.title, self.total, "images", counts=True)
        if world().leads:  # nobody sees the progress lines of other ranks
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._bar.end()

    def _follow(self) -> None:
        while not self._ended.wait(REFRESH):
            self._show()
        self._show()

    def _show(self) -> None:
        with contextlib.suppress(RankLost):  # the job itself reports a lost rank
            self._bar.update(self.counter.add(0))
