"""One expansion: what identifies it, its directory, and how the directory is filled."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from distdiff.expansion.adopting import adopt, siblings_of
from distdiff.expansion.batch_size import batch_size_for
from distdiff.expansion.estimate import SayEstimate
from distdiff.expansion.failures import FailureJournal, FailureLimit
from distdiff.expansion.module import ExpansionModule, PlannedBatches
from distdiff.expansion.plan import ExpansionPlan
from distdiff.expansion.tracking import TrackExpansion
from distdiff.expansion.writer import COMPANIONS, ExpandedWriter
from distdiff.generator.pipelines import adapter_files
from distdiff.methods.base import Method
from distdiff.methods.img2img import Img2Img
from distdiff.methods.synthesis import Synthesizer
from distdiff.ranks.stopping import StopBetweenBatches
from distdiff.ranks.trainer import build_trainer, trainer_device
from distdiff.ranks.world import Counter, world
from distdiff.store.cards import dataset_card
from distdiff.store.columns import kind_of
from distdiff.store.contents import Contents
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.failures import num_failed, read_failures, say_failures
from distdiff.store.formats.base import Storage
from distdiff.store.journal import Row
from distdiff.store.options import StorageOptions
from distdiff.store.shares import OUTPUT_DIR, Share, working_on
from distdiff.tracking.run_ids import forget_ids, hand_on, take_over
from distdiff.writing import writing_to

TRIAL = 64  # items among which two are sought that may share a batch


@dataclass
class ExpansionJob:
    """Describes an expansion before it is made. The `ingredients` identify the expansion.

    `name` is the name of the study's row. `synthesizer(title)` loads the synthesizer that makes the images; `title`
    labels progress bars. `method` plans the images. `choose_sources()` returns the positions of the sources that get
    copies; if `choose_sources` is None, all sources get copies. `adopts`: whether to copy images that a neighbouring
    directory already has, if they were made in the same way. `callbacks` are further callbacks of the Lightning trainer
    that makes the images.
    """

    name: str
    seed: int
    sources: LabelledImages
    ingredients: dict[str, Any]
    synthesizer: Callable[[str], Synthesizer]
    path: Path
    config: DictConfig
    method: Method = field(default_factory=Img2Img)
    choose_sources: Callable[[], np.ndarray] | None = None
    adopts: bool = False
    callbacks: Sequence[Callback] = ()
    fingerprint: str = field(init=False)
    limit: FailureLimit = field(init=False)

    def __post_init__(self) -> None:
        self.fingerprint = fingerprint(self.ingredients)
        self.limit = FailureLimit(self.config.expansion.max_failures)

    @cached_property
    def plan(self) -> ExpansionPlan:
        """Every image that the job is to make."""
        return self.plan_of(self.config.expansion.factor)

    def plan_of(self, factor: int) -> ExpansionPlan:
        """The plan with `factor` in place of `expansion.factor`."""
        return self._plan_of(factor, self._chosen)

    def _plan_of(self, factor: int, chosen: np.ndarray | None) -> ExpansionPlan:
        options, extension = self.config.expansion, StorageOptions.of(self.config).encoding.extension
        return ExpansionPlan(
            self.sources, factor, options.strength, self.seed, extension, options.balance, self.method, chosen
        )

    @property
    def size(self) -> int | None:
        """The number of images that the directory is to hold; None if the guide decides which sources get copies."""
        return len(self.plan) if self.choose_sources is None else None

    @property
    def planned_size(self) -> int:
        """The number of images that are to be made. It does not depend on which sources the guide decides on."""
        return len(self._plan_of(self.config.expansion.factor, None))

    @cached_property
    def _chosen(self) -> np.ndarray | None:
        """The positions of the sources that get copies; None for all sources."""
        return None if self.choose_sources is None else world().once(self.choose_sources)

    def claim(self) -> None:
        """Makes the directory, or checks that an existing one belongs to this job.

        Raises `UserError` if the directory belongs to another job, or if too many sources cannot be read.
        """
        world().once(self._claim)

    @property
    def contents(self) -> Contents | None:
        """Which images of the finished directory belong to this job; None if all of them do.

        The directory may hold more images, if it was made with a larger factor.
        """
        return self.plan

    def continue_run(self, run_dir: Path) -> None:
        """Lets the logger in `run_dir` continue the W&B run of an earlier job that did not finish the same share.

        Raises `UserError` if another process is at work on the share, because the W&B run is then that process's.
        """
        world().once(lambda: self._continue_run(run_dir))

    def run(self, title: str, logger: Logger | bool = False, run_dir: Path | None = None) -> int:
        """Makes the missing images of this process's share; the process that makes the last image finishes the directory.

        Returns how many images of other shares are still missing. Makes nothing if the directory is complete. Progress
        is logged to `logger`, whose W&B run in `run_dir` a later job of the same share will continue. Raises `UserError`
        as `claim` does, if too many images fail, and if the file system does not tell the names of two images apart.
        """
        self.claim()  # again: hours may have passed, and the directory may be gone
        _ = self._chosen  # must be computed by all ranks together, and later one rank alone needs it
        ranks, share, num_lacking = world(), self.share, 0
        ranks.once(lambda: ExpandedDirectory(self.path).check_names(self.plan))
        if not self.is_found_done():
            with ExitStack() as holding:
                # The leading rank takes its share first: if another process holds that share, all ranks stop.
                ranks.once(lambda: holding.enter_context(working_on(self.path, share)))
                if not ranks.leads:
                    holding.enter_context(working_on(self.path, share))
                elif run_dir is not None:
                    hand_on(run_dir, self.path, share.whole.name)
                num_lacking = self.fill(share, title, logger)
        say_failures(self.path)
        return num_lacking

    def is_done(self) -> bool:
        """Whether the directory is complete and has all images of the plan."""
        return ExpandedDirectory(self.path).holds(self.plan)

    def is_found_done(self) -> bool:
        """The answer of `is_done` that the leading rank finds, for all ranks, which call this together."""
        _ = self._chosen  # computed by all ranks together, as the plan needs it
        return world().once(self.is_done)

    def fill(self, share: Share, title: str, logger: Logger | bool) -> int:
        """Makes a share's images and returns how many images of other shares are missing.

        If none is missing, also finishes the directory.
        """
        directory = ExpandedDirectory(self.path)
        self.make_missing(self.plan, share, title, logger, directory.storage, directory.rows)
        return world().once(lambda: self._finish_plan(directory))

    def make_missing(
        self,
        plan: ExpansionPlan,
        share: Share,
        title: str,
        logger: Logger | bool,
        storage: Storage,
        rows: Callable[[], Mapping[str, Row]],
        wanted: np.ndarray | None = None,
    ) -> None:
        """Makes the missing images of a plan that belong to a share, and writes them to `storage`.

        `rows()` returns the metadata rows of the existing images by file name. If `wanted` (indices into the plan) is
        given, only images at these indices are made.
        """
        ranks = world()
        lacking = ranks.once(lambda: plan.missing(self._settled(rows())))
        settled = len(plan) - len(lacking)
        missing = self._part(plan, share.whole, lacking if wanted is None else np.intersect1d(lacking, wanted))
        if not len(missing):
            return
        if wanted is None:
            self._say_going_on(plan, settled)
        if self.adopts and not self.method.together:
            before = len(missing)
            missing = ranks.once(lambda: self._without_adopted(plan, missing, share, storage))
            settled += before - len(missing)
            if not len(missing):
                return
        failures = FailureJournal(self.path, share, self.limit, plan, settled)
        ranks.once(failures.check)
        try:
            self._make(plan, missing, share, title, failures, logger, storage)
        except BaseException:  # the run ends here, so list what has failed so far
            ExpandedDirectory(self.path).list_failures(share, self.sources.unreadable)
            raise

    @property
    def share(self) -> Share:
        """The part of the images that this process makes."""
        options, ranks = self.config.expansion, world()
        return Share(options.split or 0, options.total_split, ranks.rank, ranks.size)

    def _continue_run(self, run_dir: Path) -> None:
        if not ExpandedDirectory(self.path).manifest()["complete"]:
            share = self.share.whole
            with working_on(self.path, share):
                take_over(self.path, share.name, run_dir)

    def _claim(self) -> None:
        self.limit.check_sources(self.sources)
        options = StorageOptions.of(self.config)
        declared = {name: kind_of(name, declared) for name, declared in self.method.columns.items()}
        if self.method.together:
            declared[COMPANIONS] = kind_of(COMPANIONS, list[str])
        ExpandedDirectory(self.path).claim(self.ingredients, self.sources.class_names, options, declared, self._notes)

    def _notes(self) -> dict[str, Any]:
        """What the manifest says about the models beyond their fingerprints: which files of adapters were taken."""
        adapters = adapter_files(self.config.generator) if "generator" in self.ingredients else []
        return {"adapters": adapters} if adapters else {}

    def _settled(self, rows: Mapping[str, Row]) -> set[str]:
        """The file names of images that need not be made, because they have a metadata row or failed before.

        If one of several images that were made together was lost, the others are not in the result either, so that all
        of them are made again.
        """
        settled = rows.keys() | read_failures(self.path).keys()
        if not self.method.together:
            return settled
        torn = {name for name, row in rows.items() if not settled.issuperset(row[COMPANIONS])}
        return settled - torn

    def _part(self, plan: ExpansionPlan, share: Share, indices: np.ndarray) -> np.ndarray:
        """The `indices` of the items that belong to a share; copies that are made together belong to the same share."""
        return share.of(indices, plan.source_numbers(indices) if self.method.together else None)

    def _without_adopted(self, plan: ExpansionPlan, missing: np.ndarray, share: Share, storage: Storage) -> np.ndarray:
        """Copies the missing items that another row of the study has made, and returns the indices of the rest."""
        siblings = list(siblings_of(self.path, self.ingredients, storage))
        if not siblings:
            return missing
        names = list(plan.file_names())
        wanted = {names[index]: index for index in missing.tolist()}
        with writing_to(self.path, OUTPUT_DIR):
            storage.begin(share.name)
            adopted = adopt(siblings, wanted, storage)
        if adopted:
            console.print(f"{len(adopted):,} images were made for another row already")
        return np.array([index for name, index in wanted.items() if name not in adopted], dtype=np.int64)

    def _say_going_on(self, plan: ExpansionPlan, settled: int) -> None:
        """Prints how many images earlier runs have made; images that failed do not count."""
        if world().leads and (there := settled - num_failed(self.path, plan)) > 0:
            console.print(f"going on: {there:,} of {len(plan):,} images are there")

    def _finish_plan(self, directory: ExpandedDirectory) -> int:
        counts = self._counts(self.plan)
        return self._finish(directory, self.plan, counts, len(self.plan) - counts["failed"], self.plan.words)

    def _finish(
        self, directory: ExpandedDirectory, contents: Contents, counts: dict[str, int], made: int, words: str
    ) -> int:
        """Finishes the directory, unless images are missing, and returns how many are.

        The dataset card says that `made` images were made, and `words` in how many copies and classes.
        """
        card = dataset_card(
            dataset=self.config.dataset.name,
            method=self.name,
            seed=self.ingredients["seed"],
            fingerprint=self.fingerprint,
            made=made,
            words=words,
            counts=counts,
            storage=self.config.expansion.format,
        )
        lacking = directory.finish(contents, counts, card)
        if not lacking:
            forget_ids(self.path)
        return lacking

    def _counts(self, plan: ExpansionPlan) -> dict[str, int]:
        return {
            "sources": len(self.sources),
            "classes": len(self.sources.class_names),
            "unreadable": len(self.sources.unreadable),
            "failed": num_failed(self.path, plan),
        }

    def _make(
        self,
        plan: ExpansionPlan,
        missing: np.ndarray,
        share: Share,
        title: str,
        failures: FailureJournal,
        logger: Logger | bool,
        storage: Storage,
    ) -> None:
        """Makes this rank's part of `missing`, and returns when all ranks are done."""
        ranks, synthesizer = world(), self.synthesizer(title)
        part = self._part(plan, share, missing)
        batches = plan.batches(part, self.batch_size(plan, part, synthesizer), synthesizer.group)
        with (
            SharedProgress(f"{title}: expand", len(missing), ranks.counter()) as progress,
            self._timed(progress.counter, synthesizer),
        ):
            reports: list[Callback] = [SayEstimate(len(missing), StorageOptions.of(self.config).encoding, ranks.size)]
            if logger:
                reports.append(
                    TrackExpansion(logger, made=lambda: progress.counter.add(0), failures=lambda: failures.failed)
                )
            writer = ExpandedWriter(self.path, storage, share, self.method.together)
            trainer = build_trainer(
                self.config.trainer,
                callbacks=[writer, failures, progress, *reports, *self.callbacks, StopBetweenBatches()],
                enable_progress_bar=False,
                inference_mode=False,
                precision="32-true",  # the sampler follows `generator.dtype`; `trainer.precision` is for classifiers
            )
            if batches:
                module = ExpansionModule(synthesizer, self.method.together)
                trainer.predict(module, PlannedBatches(plan, batches).loader(), return_predictions=False)
            ranks.barrier()

    def batch_size(self, plan: ExpansionPlan, part: np.ndarray, synthesizer: Synthesizer) -> int:
        """The number of images in a batch of the items at `part`."""
        pairs = plan.batches(part[:TRIAL], 2, synthesizer.group)
        items = [plan[int(index)] for index in max(pairs, key=len, default=())]
        with synthesizer.alone():
            return batch_size_for(self.config, synthesizer, items, trainer_device(self.config.trainer))

    @contextmanager
    def _timed(self, made: Counter, synthesizer: Synthesizer) -> Iterator[None]:
        """Records how long the `with` block took and how many images `made` counts, even if the block is interrupted.

        What the synthesizer was spared counts too, so that a rate does not depend on what was made before.
        """
        started, spared = time.perf_counter(), synthesizer.spared
        try:
            yield
        finally:
            if world().leads:
                with suppress(UserError):  # a full disk has been reported already
                    seconds = time.perf_counter() - started + synthesizer.spared - spared
                    ExpandedDirectory(self.path).note_time(seconds, made.add(0))
