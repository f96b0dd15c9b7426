"""Ends the work after a signal at a point at which nothing is lost or half written."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from distdiff.errors import STOPPING, Stopped

TOGETHER = 2.0  # seconds within which two signals count as one


class StopBetweenBatches(Callback):
    """Notes the signals `STOPPING` (Ctrl-C and others), and raises `Stopped` after the batch in progress is done.

    The batches are those of training, validation or prediction. `StopBetweenBatches` must be the last of a trainer's
    callbacks, except for a `ModelCheckpoint`. A second signal has its usual effect, but is ignored within `TOGETHER`
    seconds of the first, because a process may get one signal twice: from the system and from its launcher.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.moment = 0.0
        # Recorded before Lightning sets its handlers; its handler of SIGTERM waits for a loop that prediction lacks.
        self.previous: dict[int, Any] = {number: signal.getsignal(number) for number in STOPPING}

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replaces the handlers that Lightning has just installed, which would end the process or resubmit the job."""
        for number in STOPPING:
            signal.signal(number, self._note)

    on_train_start = on_validation_start = on_predict_start

    def on_predict_batch_end(self, *_: object) -> None:
        if self.received is not None:
            raise Stopped(self.received)

    def on_train_batch_end(self, *_: object) -> None:
        self.on_predict_batch_end()

    def on_validation_batch_end(self, *_: object) -> None:
        self.on_predict_batch_end()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number in list(self.previous):
            self._restore(number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received is None:
            self.received, self.moment = number, time.monotonic()
        elif time.monotonic() - self.moment > TOGETHER:
            self._restore(number)
            signal.raise_signal(number)

    def _restore(self, number: int) -> None:
        signal.signal(number, self.previous.pop(number, signal.SIG_DFL))


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Inside the block, which must not have anything to lose, the signals `STOPPING` raise `Stopped` at once.

    Within the block, `StopBetweenBatches` may replace these handlers for a while.
    """

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():  # the only thread that may set handlers
        yield
        return
    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
