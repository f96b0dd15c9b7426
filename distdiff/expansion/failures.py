"""Journals and counts failed samples, and ends the run when too many samples have failed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from distdiff.data.images import LabelledImages
from distdiff.data.readable import describe_unreadable
from distdiff.errors import UserError
from distdiff.expansion.plan import ExpansionPlan
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized
from distdiff.ranks.world import world
from distdiff.store.failures import FAILURE_JOURNALS, FAILURES, SAMPLE, num_failed
from distdiff.store.journal import append_rows
from distdiff.store.shares import OUTPUT_DIR, Share
from distdiff.writing import writing_to

PATIENCE = 100  # a fractional limit is a fraction of at least this many images, or of all if fewer are planned


class FailureLimit:
    """The limit that `expansion.max_failures` sets.

    A value below 1 is a fraction of the images tried, a value from 1 on is a number of images, and None sets no limit.
    """

    def __init__(self, allowed: float | None) -> None:
        self.allowed = allowed

    def exceeded(self, failed: int, tried: int, planned: int) -> bool:
        """Whether `failed` of `tried` images are too many.

        A fractional limit is a fraction of the `tried` images. As long as fewer than `PATIENCE` images are tried, it is
        a fraction of `PATIENCE` images, or of the `planned` images if those are fewer.

        >>> FailureLimit(0.25).exceeded(20, tried=20, planned=1000), FailureLimit(0.25).exceeded(26, 26, 1000)
        (False, True)
        >>> FailureLimit(3).exceeded(3, 4, 5), FailureLimit(3).exceeded(4, 5, 5), FailureLimit(None).exceeded(9, 9, 9)
        (False, True, False)
        """
        if self.allowed is None:
            return False
        if self.allowed >= 1:
            return failed > self.allowed
        return failed > self.allowed * max(tried, min(planned, PATIENCE))

    def check_sources(self, sources: LabelledImages) -> None:
        """Raises `UserError` if too many sources cannot be read."""
        lost, total = sources.unreadable, len(sources) + len(sources.unreadable)
        if self.exceeded(len(lost), total, total):
            raise UserError(
                f"{len(lost):,} of {total:,} source images cannot be read, more than "
                f"expansion.max_failures={self.allowed:g} allows: {describe_unreadable(lost)}"
            )


class FailureJournal(Callback):
    """Journals samples that failed, and ends the run with a `UserError` when too many samples have failed."""

    def __init__(self, directory: Path, share: Share, limit: FailureLimit, plan: ExpansionPlan, settled: int) -> None:
        """`settled`: how many images of the plan exist already or failed before; all of these count as tried.

        All ranks must call the constructor together.
        """
        self.directory = directory
        self.journal = directory / FAILURE_JOURNALS.replace("*", share.name)
        self.limit, self.planned = limit, len(plan)
        self._before = world().once(lambda: (num_failed(directory, plan), settled))
        self._failed, self._tried = world().counter(), world().counter()

    @property
    def failed(self) -> int:
        """How many images of the whole plan failed, in earlier runs and on all ranks of this job."""
        return self._before[0] + self._failed.add(0)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Synthesized,
        batch: Sequence[WorkItem],
        *_: object,
    ) -> None:
        self._tried.add(len(batch))
        if not outputs.failures:
            return
        self._failed.add(len(outputs.failures))
        rows = [failure_row(batch[place], reason) for place, reason in outputs.failures.items()]
        with writing_to(self.directory, OUTPUT_DIR):
            append_rows(self.journal, rows)
        self.check(f"the last one: {next(reversed(outputs.failures.values()))}")

    def check(self, remark: str = f"see {FAILURES}") -> None:
        """Raises `UserError` if too many images failed; `remark` is part of the message."""
        failed, tried = self.failed, self._before[1] + self._tried.add(0)
        if failed and self.limit.exceeded(failed, tried, self.planned):
            raise UserError(
                f"{failed:,} of {tried:,} images failed, more than "
                f"expansion.max_failures={self.limit.allowed:g} allows ({remark}); in {self.directory}, delete {FAILURES} "
                "to have them tried again"
            )


def failure_row(item: WorkItem, reason: str) -> dict[str, Any]:
    return {
        "source": item.source,
        "class_name": item.class_name,
        "file_name": item.file_name,
        "copy": item.copy,
        "stage": SAMPLE,
        "reason": reason,
    }
