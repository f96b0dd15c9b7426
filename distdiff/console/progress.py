"""One progress line a stage: what runs, how far, how fast, how long still."""

from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console = Console(highlight=False, soft_wrap=True, width=140)  # a log file has room for whole lines


class RateColumn(ProgressColumn):
    """Items a second since the stage began."""

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
    """Lightning's steps or predictions on one line named `title`.

    In prediction a batch counts as many `unit` as `size(batch)` says.
    """

    def __init__(self, title: str, unit: str = "steps", total: int | None = None) -> None:
        super().__init__()
        self.title = title
        self.unit = unit
        self.total = total
        self._progress: Progress | None = None
        self._task: Any = None

    def _start(self, total: int) -> None:
        if self._progress is None and self.trainer.is_global_zero:
            self._progress = stage_progress()
            self._progress.start()
            self._task = self._progress.add_task(self.title, total=total, unit=self.unit)

    def advance(self, count: int = 1) -> None:
        """Counts `count` more units as done."""
        if self._progress is not None:
            self._progress.advance(self._task, count)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(self.total or trainer.max_steps)

    def on_train_batch_end(self, *_: Any) -> None:
        self.advance()

    def on_train_end(self, *_: Any) -> None:
        self._stop()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(self.total or 0)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Sequence[Any], *_: Any
    ) -> None:
        self.advance(len(batch))

    def on_predict_end(self, *_: Any) -> None:
        self._stop()

    def on_exception(self, *_: Any) -> None:
        self._stop()

    def print(self, *args: Any, **kwargs: Any) -> None:
        console.print(*args)
