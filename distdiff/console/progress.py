"""One progress line per stage: its title, the number of finished items, the speed and the time remaining."""

import contextlib
import sys
import threading
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from distdiff.console.output import console
from distdiff.errors import RankLost
from distdiff.ranks.world import Counter, world

REFRESH = 0.5  # seconds


def announce(message: str) -> None:
    """Prints one line from any rank. Ranks that do not lead print to stderr, because their console is quiet."""
    if world().leads:
        console.print(message)
    else:
        print(f"rank {world().rank}: {message}", file=sys.stderr, flush=True)


class RateColumn(ProgressColumn):
    """Items per second since the stage began."""

    def render(self, task: Task) -> Text:
        speed = task.completed / task.elapsed if task.elapsed and task.completed else None
        return Text(f"{speed:.1f} {task.fields['unit']}/s" if speed else "", style="progress.data.speed")


def stage_progress() -> Progress:
    """A rich progress display for one stage."""
    return Progress(
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(elapsed_when_finished=True, compact=True),
        console=console,
    )


class StageProgress(ProgressBar):
    """Shows Lightning's training steps on one line named `title`."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self._progress: Progress | None = None
        self._task: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._progress = stage_progress()
        self._progress.start()
        done = trainer.global_step  # more than 0 if the training goes on from a checkpoint
        self._task = self._progress.add_task(self.title, total=trainer.max_steps, completed=done, unit="steps")

    def on_train_batch_end(self, *_: Any) -> None:
        self._progress.advance(self._task)

    def on_train_end(self, *_: Any) -> None:
        self._stop()

    def on_exception(self, *_: Any) -> None:
        self._stop()

    def disable(self) -> None:
        """Does nothing. Lightning calls this method on ranks that do not lead, where the console is quiet anyway."""

    def print(self, *args: Any, **kwargs: Any) -> None:
        console.print(*args)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class SharedProgress(Callback):
    """Inside a `with` block, shows how many images all ranks together have made, on one line named `title`."""

    def __init__(self, title: str, total: int, counter: Counter) -> None:
        super().__init__()
        self.counter = counter
        self._progress = stage_progress()
        self._task = self._progress.add_task(title, total=total, unit="images")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Sequence[Any], *_: Any
    ) -> None:
        self.counter.add(len(batch))

    def __enter__(self) -> "SharedProgress":
        self._progress.start()
        if world().leads:  # nobody sees the progress lines of other ranks
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._progress.stop()

    def _follow(self) -> None:
        while not self._ended.wait(REFRESH):
            self._show()
        self._show()

    def _show(self) -> None:
        with contextlib.suppress(RankLost):  # the job itself reports a lost rank
            self._progress.update(self._task, completed=self.counter.add(0))
