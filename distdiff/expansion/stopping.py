"""Ends an expansion between two batches when a signal asks for it, so that nothing is lost or torn."""

import signal
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from distdiff.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopBetweenBatches(Callback):
    """Notes SIGINT (Ctrl-C), SIGTERM and SIGUSR1, and raises `Stopped` after the batch in progress is written.

    To be the last of a trainer's callbacks. A second signal of a kind does what it would do without this.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """After Lightning has set its own handlers, which would end the process or resubmit the job."""
        self.previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def on_predict_batch_end(self, *_: object) -> None:
        if self.received is not None:
            raise Stopped(self.received)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number in list(self.previous):
            self._restore(number)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        self._restore(number)

    def _restore(self, number: int) -> None:
        signal.signal(number, self.previous.pop(number, signal.SIG_DFL))
