"""An expansion in which a selection keeps only some of the images.

Candidate images are written below `.candidates/`. Once all candidates exist, the images to keep are chosen class by
class and moved to the dataset. At every moment each image is in at least one of these two places, so a stop loses no
image and the next run can continue.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from lightning.pytorch.loggers import Logger

from distdiff.console.output import console
from distdiff.data.images import Unreadable
from distdiff.expansion.examining import Examiner
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.plan import ExpansionPlan
from distdiff.locking import forget, held_once_free
from distdiff.ranks.world import world
from distdiff.selection.all import All
from distdiff.selection.base import Selection
from distdiff.store.candidates import CandidateStore
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.journal import Row
from distdiff.store.shares import OUTPUT_DIR, Share, forget_shares
from distdiff.wording import counted
from distdiff.writing import writing_to

SELECTING = ".selecting.lock"
SHARE = "selection"  # the name of the share that moves images


@dataclass(frozen=True)
class Kept:
    """The contents of a finished directory: the file names of the images chosen for `factor`."""

    names: Sequence[str]
    factor: int
    unreadable: Sequence[Unreadable] = ()

    def file_names(self) -> Iterator[str]:
        return iter(self.names)

    def missing(self, done) -> np.ndarray:
        """The indices in `names` of the file names that are not in `done`, (m,) int64."""
        return np.array([place for place, name in enumerate(self.names) if name not in done], dtype=np.int64)

    def factor_with(self, rows: Sequence[Row]) -> int:
        return self.factor


@dataclass
class SelectingJob(ExpansionJob):
    """Makes candidates, and keeps as many images of each class as `expansion.factor` asks for.

    `examiner(title)` trains or loads φ and returns the `Examiner` of the candidates; `title` labels progress bars.
    """

    selection: Selection = All()
    examiner: Callable[[str], Examiner] | None = None
    _loaded_examiner: Examiner | None = field(init=False, default=None)

    @property
    def contents(self) -> None:
        """Always None: all images of the directory belong to the job. A run with another factor selects anew."""
        return None

    @property
    def factor(self) -> int:
        return self.config.expansion.factor

    @cached_property
    def directory(self) -> ExpandedDirectory:
        return ExpandedDirectory(self.path)

    @cached_property
    def store(self) -> CandidateStore:
        return CandidateStore(self.directory)

    def is_done(self) -> bool:
        """Whether the directory is complete and holds the images chosen for this factor."""
        manifest = self.directory.manifest()
        if not manifest["complete"] or manifest["counts"]["factor"] != self.factor:
            return False
        if len(self.directory.rows()) < manifest["counts"]["images"]:
            return False
        self.directory.forget_lock()
        return True

    def fill(self, share: Share, title: str, logger: Logger | bool) -> int:
        """Makes a share's candidates and returns how many candidates of other shares are still missing.

        The process that finds none missing chooses the images. If a class has too few good candidates, this process
        makes more of them.
        """
        while True:
            lacking = self._fill(share, title, logger)
            if lacking is not None:
                return lacking

    def _fill(self, share: Share, title: str, logger: Logger | bool) -> int | None:
        """Does the work of `fill` once; returns None if chosen images have been lost and must be made again."""
        ranks = world()
        with ExitStack() as selecting:
            ranks.once(lambda: self._lock_and_prepare(selecting))
            if ranks.once(self.is_done):
                return 0
            if ranks.once(lambda: self.store.kept() is None):
                selecting.close()  # so that other processes can work on their shares meanwhile
                first = self.plan_of(self.selection.factors(self.factor)[0])
                self._make_candidates(first, share, title, logger)
                if lacking := ranks.once(lambda: len(first.missing(self._settled(self._rows())))):
                    return lacking
                ranks.once(lambda: self._lock_and_prepare(selecting))
                if ranks.once(self.is_done):  # the process of another share was faster
                    return 0
                self._choose(title, logger)
            return 0 if ranks.once(self._keep) else None

    def _lock_and_prepare(self, selecting: ExitStack) -> None:
        """Takes the lock once it is free, then moves images chosen for another factor back to the candidates."""
        with writing_to(self.path, OUTPUT_DIR):
            lock = self.path / SELECTING
            selecting.enter_context(
                held_once_free(lock, "another process selects images of this directory; waiting for it")
            )
            if self.is_done():  # by another process, while this one waited
                forget(lock)
                forget_shares(self.path)
                return
            kept = self.store.kept()
            if kept is not None and kept["factor"] == self.factor and not self.directory.manifest()["complete"]:
                return  # the move of the chosen images was interrupted and will continue
            self.store.forget_kept()
            if self.directory.rows() or self.directory.manifest()["complete"]:
                before = self.directory.manifest().get("counts", {}).get("factor", "another")
                console.print(f"selecting anew for expansion.factor={self.factor}: the factor was {before} before")
                self.store.take_back(SHARE)

    def _rows(self) -> dict[str, Row]:
        """The metadata rows, by file name, of all images made so far, kept or not."""
        candidates = self.store.rows()  # read first: another process may be moving candidates to the directory
        return candidates | self.directory.rows()

    def _make_candidates(
        self, plan: ExpansionPlan, share: Share, title: str, logger: Logger | bool, wanted: np.ndarray | None = None
    ) -> None:
        world().once(self._open_store)
        self.make_missing(plan, share, title, logger, self.store.storage, self._rows, wanted)

    def _open_store(self) -> None:
        with writing_to(self.path, OUTPUT_DIR):
            self.store.path.mkdir(exist_ok=True)

    def _choose(self, title: str, logger: Logger | bool) -> None:
        """Chooses images class by class.

        For a class with too few good candidates it makes more, whichever share they belong to.
        """
        wanted = {int(label): int(count) for label, count in enumerate(self.plan.counts) if count}
        chosen: dict[int, list[str]] = {}
        factors = self.selection.factors(self.factor)
        for number, factor in enumerate(factors):
            plan, last = self.plan_of(factor), number == len(factors) - 1
            open_classes = sorted(wanted.keys() - chosen.keys())
            if number:
                console.print(f"more candidates for {counted(len(open_classes), 'class')} with too few good ones")
                in_open = np.flatnonzero(np.isin(plan.labels, open_classes))
                self._make_candidates(plan, _all_shares(), title, logger, in_open)
            chosen |= world().once(lambda p=plan, o=open_classes, la=last: self._chosen_of(p, o, wanted, la, title))
            if len(chosen) == len(wanted):
                break
        names = {name for kept in chosen.values() for name in kept}
        ordered = [name for name in plan.file_names() if name in names]
        world().once(lambda: self._note(ordered, wanted))

    def _note(self, names: list[str], wanted: dict[int, int]) -> None:
        with writing_to(self.path, OUTPUT_DIR):
            self.store.note_kept({"factor": self.factor, "names": names})
        if (short := sum(wanted.values()) - len(names)) > 0:
            console.print(f"{short:,} images fewer than planned were kept: there are no more candidates")

    def _chosen_of(
        self, plan: ExpansionPlan, labels: Sequence[int], wanted: dict[int, int], last: bool, title: str
    ) -> dict[int, list[str]]:
        """{class: file names to keep} for the classes `labels`; a class that needs more candidates has no entry."""
        rows, examiner, found = self._rows(), self._examiner(title), {}
        for label in labels:
            of_class = map(plan.__getitem__, np.flatnonzero(plan.labels == label).tolist())
            items = [item for item in of_class if item.file_name in rows]
            own = [rows[item.file_name] for item in items]
            if not own:
                found |= {label: []} if last else {}
                continue
            candidates = examiner.candidates(label, items, own, self.store.reader(own))
            places = self.selection.choose(candidates, wanted[label], last)
            if last or len(places) >= wanted[label]:
                found[label] = [items[place].file_name for place in np.asarray(places)[: wanted[label]].tolist()]
        return found

    def _examiner(self, title: str) -> Examiner:
        if self._loaded_examiner is None:
            self._loaded_examiner = self.examiner(title)
        return self._loaded_examiner

    def _keep(self) -> bool:
        """Moves the chosen images to the dataset and finishes the directory.

        Returns False if some of the chosen images are lost.
        """
        with writing_to(self.path, OUTPUT_DIR):
            kept = self.store.kept()
            self.store.hand_over(kept["names"], SHARE)
            candidates = len(self.store.rows())
            if self.selection.keep_candidates:
                self.store.finish()
            counts = self._counts(self.plan_of(self.selection.factors(self.factor)[-1])) | {"candidates": candidates}
            contents = Kept(kept["names"], self.factor, self.sources.unreadable)
            made = len(contents.names)
            words = f"chosen of {made + candidates:,}; {self.plan.words} were wanted"
            if self._finish(self.directory, contents, counts, made, words):
                self.store.forget_kept()
                self.store.take_back(SHARE)
                return False
            if not self.selection.keep_candidates:
                self.store.delete()
            forget(self.path / SELECTING)
        console.print(f"kept {len(kept['names']):,} of {len(kept['names']) + candidates:,} images")
        return True


def _all_shares() -> Share:
    """The whole plan as a share, divided among this job's ranks only, because the shares of other jobs are done."""
    ranks = world()
    return Share(0, 1, ranks.rank, ranks.size)
