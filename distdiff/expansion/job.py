"""One expansion: a directory with an identity, and how to fill it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint
from distdiff.console.output import console
from distdiff.console.progress import SharedProgress
from distdiff.data.images import LabelledImages
from distdiff.errors import UserError
from distdiff.expansion.estimate import SayEstimate
from distdiff.expansion.failures import FailureJournal, FailureLimit
from distdiff.expansion.module import ExpansionModule, PlannedBatches
from distdiff.expansion.plan import ExpansionPlan
from distdiff.expansion.stopping import StopBetweenBatches
from distdiff.expansion.synthesis import Synthesizer
from distdiff.expansion.tracking import TrackExpansion
from distdiff.expansion.writer import ExpandedWriter
from distdiff.ranks.trainer import build_trainer
from distdiff.ranks.world import Counter, world
from distdiff.store.cards import dataset_card
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.failures import num_failed, say_failures
from distdiff.store.options import StorageOptions
from distdiff.store.shares import Share, working_on


@dataclass
class ExpansionJob:
    """An expansion that is known but not made: `ingredients` identify it, `synthesizer()` loads what makes it."""

    method: str
    seed: int
    sources: LabelledImages
    ingredients: dict[str, Any]
    synthesizer: Callable[[str], Synthesizer]
    path: Path
    config: DictConfig
    fingerprint: str = field(init=False)
    limit: FailureLimit = field(init=False)

    def __post_init__(self) -> None:
        self.fingerprint = fingerprint(self.ingredients)
        self.limit = FailureLimit(self.config.expansion.max_failures)

    @cached_property
    def plan(self) -> ExpansionPlan:
        """Every image that the job is to make."""
        options, extension = self.config.expansion, StorageOptions.of(self.config).encoding.extension
        return ExpansionPlan(self.sources, options.factor, options.strength, self.seed, extension, options.balance)

    def claim(self) -> None:
        """Makes the directory, or checks that it is this job's; raises `UserError` if it is another's.

        And where too many sources cannot be read.
        """
        world().once(self._claim)

    def run(self, title: str, logger: Logger | bool = False) -> int:
        """Makes the images of this process's share that are not there yet; whoever makes the last finishes the directory.

        Returns how many images are missing: those of other shares. Does nothing where the directory is complete. `logger`
        shows how it goes.
        """
        self.claim()  # again: hours may have passed, and the directory may be gone
        directory, options, ranks, plan = ExpandedDirectory(self.path), self.config.expansion, world(), self.plan
        if ranks.once(lambda: directory.holds(plan)):
            say_failures(self.path)
            return 0
        share = Share(options.split or 0, options.total_split, ranks.rank, ranks.size)
        with ExitStack() as holding:
            # The leading rank first: where it is refused, all are.
            ranks.once(lambda: holding.enter_context(working_on(self.path, share)))
            if not ranks.leads:
                holding.enter_context(working_on(self.path, share))
            lacking = ranks.once(lambda: plan.missing(directory.settled()))
            missing = share.whole.of(lacking)
            if len(missing):
                self._say_going_on(len(plan) - len(lacking))
                failures = FailureJournal(self.path, share, self.limit, plan, settled=len(plan) - len(lacking))
                ranks.once(failures.check)
                try:
                    self._make(plan, missing, share, title, failures, logger)
                except BaseException:  # the run ends here: what failed so far is to be seen
                    directory.list_failures(share, self.sources.unreadable)
                    raise
            num_lacking = ranks.once(lambda: self._finish(directory, plan))
        say_failures(self.path)
        return num_lacking

    def _claim(self) -> None:
        self.limit.check_sources(self.sources)
        options = StorageOptions.of(self.config)
        ExpandedDirectory(self.path).claim(self.ingredients, self.sources.class_names, options)

    def _say_going_on(self, settled: int) -> None:
        """Says how many images an earlier run left, those that failed in it not counted."""
        if world().leads and (there := settled - num_failed(self.path, self.plan)) > 0:
            console.print(f"going on: {there:,} of {len(self.plan):,} images are there")

    def _finish(self, directory: ExpandedDirectory, plan: ExpansionPlan) -> int:
        counts = {
            "sources": len(self.sources),
            "classes": len(self.sources.class_names),
            "unreadable": len(self.sources.unreadable),
            "failed": num_failed(self.path, plan),
        }
        card = dataset_card(
            dataset=self.config.dataset.name,
            method=self.method,
            seed=self.ingredients["seed"],
            fingerprint=self.fingerprint,
            planned=len(plan),
            words=plan.words,
            counts=counts,
            storage=self.config.expansion.format,
        )
        return directory.finish(plan, counts, card)

    def _make(
        self,
        plan: ExpansionPlan,
        missing: np.ndarray,
        share: Share,
        title: str,
        failures: FailureJournal,
        logger: Logger | bool,
    ) -> None:
        """Makes this rank's part of `missing`, and returns when all ranks have made theirs."""
        ranks, synthesizer = world(), self.synthesizer(title)
        batches = plan.batches(share.of(missing), self.config.expansion.batch_size, synthesizer.group)
        with (
            SharedProgress(f"{title}: expand", len(missing), ranks.counter()) as progress,
            self._timed(progress.counter),
        ):
            reports: list[Callback] = [SayEstimate(len(missing), StorageOptions.of(self.config).encoding, ranks.size)]
            if logger:
                reports.append(
                    TrackExpansion(logger, made=lambda: progress.counter.add(0), failures=lambda: failures.failed)
                )
            trainer = build_trainer(
                self.config.trainer,
                callbacks=[ExpandedWriter(self.path, share), failures, progress, *reports, StopBetweenBatches()],
                enable_progress_bar=False,
                inference_mode=False,
                precision="32-true",  # `generator.dtype` is the sampler's; `trainer.precision` is for classifiers
            )
            if batches:
                loader = PlannedBatches(plan, batches).loader()
                trainer.predict(ExpansionModule(synthesizer), loader, return_predictions=False)
            ranks.barrier()

    @contextmanager
    def _timed(self, made: Counter) -> Iterator[None]:
        """Notes how long the block took and how many images were made in it, also where it is stopped."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if world().leads:
                with suppress(UserError):  # a disk that is full has been spoken of
                    ExpandedDirectory(self.path).note_time(time.perf_counter() - started, made.add(0))
