"""The processes that make a study's rows side by side: this one, which has the results, and others that fill the cache."""

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from distdiff.console.output import LOG, console
from distdiff.console.stages import display
from distdiff.console.whole import Whole
from distdiff.ranks.launcher import JOB
from distdiff.ranks.processes import GRACE, THREADS, forward, kill, start
from distdiff.ranks.trainer import trainer_device
from distdiff.ranks.world import world
from distdiff.study.portions import Claims, Portion
from distdiff.study.timing import StageTimer
from distdiff.texts import read_json
from distdiff.tracking.loggers import log_recorded
from distdiff.wording import counted

PROCESS = "distdiff.cli.worker"  # the module that each of the other processes runs
REPORT, STDERR = "report-{}.json", "stderr-{}.txt"
# Where the number of processes is not given: the most pixels a side of images that several make at once, and the bytes of
# free main memory for each. With larger images, a single process keeps all threads busy.
LARGEST, MEMORY_EACH = 128, 4 * 2**30
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container
AGAIN = 60  # seconds after which a process that has not ended is told so once more


@dataclass(frozen=True)
class Report:
    """What another process has done so far: the seconds of its stages, the cache entries and the directories it made."""

    seconds: dict[str, float]
    made: dict[str, int]
    directories: list[str]

    def write(self, folder: Path, number: int) -> None:
        """Tells the process that started this one, which has this `number`."""
        aside = folder / f"{REPORT.format(number)}.new"
        aside.write_text(json.dumps(vars(self)), encoding="utf-8")
        aside.replace(folder / REPORT.format(number))

    def add_to(self, timer: StageTimer, made: list[str]) -> None:
        """Adds what the other process has done to the times and the directories of this one."""
        timer.add(self.seconds, self.made)
        made += [path for path in self.directories if path not in made]


def number_of_processes(config: DictConfig, most: int) -> int:
    """How many processes make a study of which `most` can be at work at once.

    `study.processes` says how many. If it is null: as many as there are threads, but at most one for each 4 GiB of free main
    memory, and so many that each has equally many threads and hardly any is idle; and one alone for images of more than 128
    pixels a side, on a GPU, or where the time of a training is limited. A job of several ranks has no further processes.
    """
    if world().size > 1:
        return 1
    if (given := config.study.processes) is not None:
        return max(1, min(given, most))
    if (
        config.generator.resolution > LARGEST
        or config.trainer.max_time is not None
        or trainer_device(config.trainer).type != "cpu"
    ):
        return 1
    threads = torch.get_num_threads()
    limit = max(1, min(threads, most, free_memory() // MEMORY_EACH))
    return max(range(1, limit + 1), key=lambda number: (number * (threads // number), number))


def free_memory() -> int:
    """The bytes of main memory that this process may still take, in a container too."""
    found = [psutil.virtual_memory().available]
    for path in LIMITS:
        with suppress(OSError, ValueError):  # not there, or "max"
            found.append(int(Path(path).read_text()))
    return min(found)


class Workers:
    """Lets further processes make portions of a study, as soon as there is something to make.

    This process takes the `portions` of its study in their order; the others begin at the end of the study. Images and
    classifiers that they have made are in the cache and in the directories of expanded datasets, where this process finds
    them. `task` is the function that they run (`module:function`), None if there are to be none; at most `most` processes
    are of use. As a context manager, ends the other processes.
    """

    def __init__(
        self,
        config: DictConfig,
        run_dir: Path,
        portions: Sequence[Portion],
        whole: Whole,
        task: str | None,
        most: int,
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.portions = list(portions)
        self._of_row = {(each.of_seed.seed, row): each for each in portions for row in each.rows}
        self.whole = whole
        self.task = task
        # By `most` and not by the portions that are left: a study that goes on is to have as many threads as before.
        self.processes = 1 if task is None else number_of_processes(config, most)
        self._before = torch.get_num_threads()
        self.threads = max(1, self._before // self.processes)
        self._others: list[subprocess.Popen] = []
        self._ended: set[int] = set()
        self._made: set[tuple[int, str]] = set()  # the rows that the display knows to be made
        self._begun = self.processes == 1 or not self.portions

    def __enter__(self) -> "Workers":
        self._folder = tempfile.TemporaryDirectory(prefix="distdiff-study-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self.claims = Claims(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._look()
            self._end()
        finally:
            torch.set_num_threads(self._before)
            self.claims.free()
            self._folder.cleanup()

    def begin(self) -> None:
        """Starts the other processes, unless they are there or none is wanted. Call this before something is made."""
        if self._begun:
            return
        self._begun = True
        torch.set_num_threads(self.threads)
        config = OmegaConf.to_container(self.config, resolve=True)
        job = {"task": self.task, "config": config, "run_dir": str(self.run_dir), "threads": self.threads}
        (self.folder / JOB).write_text(json.dumps(job), encoding="utf-8")
        others = min(self.processes, len(self.portions)) - 1
        for number in range(1, others + 1):
            with open(self.folder / STDERR.format(number), "wb") as said:
                arguments, threads = [str(self.folder), str(number)], {THREADS: str(self.threads)}
                self._others.append(start(PROCESS, arguments, self.threads, threads, subprocess.DEVNULL, said))
        self.whole.processes = others + 1
        if others:
            console.print(
                f"{others + 1} processes make rows side by side, with {counted(self.threads, 'thread')} each "
                "(study.processes)"
            )

    def in_turn(self, rows: Sequence[tuple[int, str]], logger: Logger | None = None) -> Iterator[tuple[int, str]]:
        """Yields the rows, each with its data seed, in their order, but those that another process is making at the end.

        What another process has printed and logged while it made a row is printed first, and logged to `logger`.
        """
        waiting = []
        for seed, row in rows:
            if self._take(seed, row, logger, patience=0):
                yield seed, row
                self._done(seed, row)
            else:
                waiting.append((seed, row))
        for seed, row in waiting:
            with display.stage(
                f"{self._of_row[seed, row].of_seed.title(row)}: in another process", 1, "row", brief=True
            ) as bar:
                self._take(seed, row, logger)
                bar.advance()
            yield seed, row
            self._done(seed, row)

    def _take(self, seed: int, row: str, logger: Logger | None, patience: float = -1) -> bool:
        """Takes the portion of a row under a data seed, if the row lacks runs. `patience` is that of `Claims.take`."""
        portion = self._of_row.get((seed, row))
        if portion is None or self.processes == 1 or self.claims.has(portion):
            return True
        if not self.claims.take(portion, patience):
            return False
        if self.claims.is_done(portion):
            self._repeat(self.claims.records(portion), logger)
        self._look()
        return True

    def _done(self, seed: int, row: str) -> None:
        """Says that a row is made, and with the last row of a portion that the portion is."""
        portion = self._of_row.get((seed, row))
        if portion is not None and self.processes > 1 and row == portion.rows[-1]:
            self.claims.done(portion)

    def reports(self) -> list[Report]:
        """What each of the other processes has done so far."""
        paths = [self.folder / REPORT.format(number) for number in range(1, len(self._others) + 1)]
        return [Report(**read_json(path)) for path in paths if path.is_file()]

    def _repeat(self, records: Path, logger: Logger | None) -> None:
        """Prints and logs what another process has recorded while it made a portion."""
        if (lines := records / LOG).is_file():
            for line in lines.read_text(encoding="utf-8").splitlines():
                console.print(line)
        log_recorded(records, logger)

    def _look(self) -> None:
        """Lets the display know what the other processes have made, and says if one is lost.

        This process has all threads once no other is left.
        """
        for (seed, row), portion in self._of_row.items():
            if (seed, row) not in self._made and self.claims.is_done(portion):
                self.whole.settle(f"{portion.of_seed.title(row)}: ")
                self._made.add((seed, row))
        for number, process in enumerate(self._others, 1):
            if (status := process.poll()) is not None and number not in self._ended:
                self._ended.add(number)
                if status:
                    self._report_loss(number, status)
        self.whole.processes = 1 + len(self._others) - len(self._ended)
        if self._others and self.whole.processes == 1:
            torch.set_num_threads(self._before)

    def _report_loss(self, number: int, status: int) -> None:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        said = (self.folder / STDERR.format(number)).read_text(encoding="utf-8", errors="replace").strip()
        why, path = "", self.run_dir / f"process-{number}.txt"
        if said:
            with suppress(OSError):  # a full disk may be why the process was lost
                path.write_text(f"{said}\n", encoding="utf-8")
                why = f", {path} says why"
        console.print(
            f"warning: a process that worked on this study {how}{why}; the remaining ones make the rows that it left"
        )

    def _end(self) -> None:
        """Ends the other processes, which finish their batch first."""
        began = time.monotonic()
        try:
            for moment in (AGAIN, GRACE):  # a process that was between two stages may have missed the first signal
                forward(signal.SIGTERM, self._others)
                for process in self._others:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(max(0.0, began + moment - time.monotonic()))
        finally:
            kill(self._others)
            for process in self._others:
                process.wait()
