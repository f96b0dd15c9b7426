"""One expansion: a directory with an identity, and how to fill it."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint
from distdiff.console.progress import SharedProgress
from distdiff.data.images import LabelledImages
from distdiff.expansion.card import dataset_card
from distdiff.expansion.directory import ExpandedDirectory
from distdiff.expansion.estimate import SayEstimate
from distdiff.expansion.module import ExpansionModule, PlannedBatches
from distdiff.expansion.plan import ExpansionPlan
from distdiff.expansion.share import Share, working_on
from distdiff.expansion.stopping import StopBetweenBatches
from distdiff.expansion.storage.options import StorageOptions
from distdiff.expansion.synthesis import Synthesizer
from distdiff.expansion.tracking import TrackExpansion
from distdiff.expansion.writer import ExpandedWriter
from distdiff.ranks.world import world
from distdiff.trainer import build_trainer


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

    def __post_init__(self) -> None:
        self.fingerprint = fingerprint(self.ingredients)

    def claim(self) -> None:
        """Makes the directory, or checks that it is this job's; raises `UserError` if it is another's."""
        directory, options = ExpandedDirectory(self.path), StorageOptions.of(self.config)
        world().once(lambda: directory.claim(self.ingredients, self.sources.class_names, options))

    def run(self, title: str, logger: Logger | bool = False) -> int:
        """Makes the images of this process's share that are not there yet; whoever makes the last finishes the directory.

        Returns how many images are missing: those of other shares. Does nothing where the directory is complete. `logger`
        shows how it goes.
        """
        directory, options, ranks = ExpandedDirectory(self.path), self.config.expansion, world()
        extension = directory.storage.options.encoding.extension
        plan = ExpansionPlan(self.sources, options.factor, options.strength, self.seed, extension)
        if ranks.once(lambda: directory.holds(plan)):
            return 0
        share = Share(options.split or 0, options.total_split, ranks.rank, ranks.size)
        with ExitStack() as holding:
            # The leading rank first: where it is refused, all are.
            ranks.once(lambda: holding.enter_context(working_on(self.path, share)))
            if not ranks.leads:
                holding.enter_context(working_on(self.path, share))
            missing = share.whole.of(ranks.once(lambda: plan.missing(directory.rows())))
            if len(missing):
                seconds = self._make(plan, missing, share, title, logger)
                ranks.once(lambda: directory.note_time(seconds))
            counts = {"sources": len(self.sources), "factor": options.factor, "classes": len(self.sources.class_names)}
            card = dataset_card(self.method, self.ingredients, counts, self.config)
            return ranks.once(lambda: directory.finish(plan, counts, card))

    def _make(self, plan: ExpansionPlan, missing: np.ndarray, share: Share, title: str, logger: Logger | bool) -> float:
        """Makes this rank's part of `missing`, and returns when all ranks have made theirs: after how many seconds."""
        ranks, synthesizer = world(), self.synthesizer(title)
        batches = plan.batches(share.of(missing), self.config.expansion.batch_size, synthesizer.group)
        started = time.perf_counter()
        with SharedProgress(f"{title}: expand", len(missing), ranks.counter()) as progress:
            reports: list[Callback] = [SayEstimate(len(missing), ranks.size)]
            if logger:
                reports.append(TrackExpansion(logger, made=lambda: progress.counter.add(0)))
            trainer = build_trainer(
                self.config.trainer,
                callbacks=[ExpandedWriter(self.path, share), progress, *reports, StopBetweenBatches()],
                enable_progress_bar=False,
                inference_mode=False,
                precision="32-true",  # `generator.dtype` is the sampler's; `trainer.precision` is for classifiers
            )
            if batches:
                loader = PlannedBatches(plan, batches).loader()
                trainer.predict(ExpansionModule(synthesizer), loader, return_predictions=False)
            ranks.barrier()
        return time.perf_counter() - started
