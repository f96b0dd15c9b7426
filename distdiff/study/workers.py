"""The processes that make a study's rows side by side: this one, which has the results, and others that fill the cache."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from distdiff.console.output import console
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
REPORT, SAID = "report-{}.json", "stderr-{}.txt"
MEMORY = 8 * 2**30  # bytes of main memory for each process, where the number of processes is not given


@dataclass(frozen=True)
class Report:
    """What another process has done so far: the seconds of its stages, the cache entries and the directories it made."""

    seconds: dict[str, float]
    made: dict[str, int]
    directories: list[str]


def number_of_processes(config: DictConfig, portions: int) -> int:
    """How many processes make a study of so many `portions`.

    `study.processes` says how many. If it is null, there is one for each thread that torch uses and each 8 GiB of main
    memory, but a single one if a GPU does the work. A job of several ranks has no further processes.
    """
    if world().size > 1:
        return 1
    if (given := config.study.processes) is not None:
        return min(given, max(1, portions))
    if trainer_device(config.trainer).type != "cpu":
        return 1
    return max(1, min(torch.get_num_threads(), portions, _memory() // MEMORY))


class Workers:
    """Lets further processes make portions of a study, as soon as there is something to make.

    This process takes the `portions` of its study in their order; the others begin at the end of the study. What they
    have made is in the cache, where this process finds it. `task` is the function that they run (`module:function`); None
    if there are to be none. As a context manager, ends the other processes.
    """

    def __init__(
        self, config: DictConfig, run_dir: Path, portions: Sequence[Portion], whole: Whole, task: str | None
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.portions = list(portions)
        self._of_row = {(each.of_seed.seed, row): each for each in portions for row in each.rows}
        self.whole = whole
        self.task = task
        rows = config.study.seeds * (len(config.study.methods) + len(config.study.rows or ()))
        # Not by the portions that are left: a study that goes on is to have as many threads as before.
        self.processes = 1 if task is None else number_of_processes(config, rows)
        self.threads = max(1, torch.get_num_threads() // self.processes)
        self._before = torch.get_num_threads()
        self._others: list[subprocess.Popen] = []
        self._ended: dict[int, int] = {}
        self._begun = self.processes == 1

    def __enter__(self) -> "Workers":
        self._folder = tempfile.TemporaryDirectory(prefix="distdiff-study-")
        self.folder = Path(self._folder.name)
        self.claims = Claims(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        try:
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
        others = min(self.processes, len(self.portions)) - 1
        config = OmegaConf.to_container(self.config, resolve=True)
        job = {"task": self.task, "config": config, "run_dir": str(self.run_dir)}
        (self.folder / JOB).write_text(json.dumps(job), encoding="utf-8")
        for number in range(1, others + 1):
            with open(self.folder / SAID.format(number), "wb") as said:
                arguments = [str(self.folder), str(number)]
                self._others.append(start(PROCESS, arguments, self.threads, {THREADS: str(self.threads)}, said))
        self.whole.processes = others + 1
        if others:
            console.print(
                f"{others + 1} processes make rows side by side, with {counted(self.threads, 'thread')} each "
                "(study.processes)"
            )

    def take(self, seed: int, row: str, logger: Logger | None = None) -> None:
        """Takes the portion of a row under a data seed, if it lacks runs. Waits while another process makes it.

        What the other process would have logged is then logged to `logger`.
        """
        portion = self._of_row.get((seed, row))
        if portion is None or self.processes == 1 or self.claims.has(portion):
            return
        if not self.claims.take(portion, patience=0):
            with display.stage(f"seed {seed}: {row}: in another process", 1, "row", brief=True):
                self.claims.take(portion)
        log_recorded(self.claims.records(portion), logger)
        self._look()

    def done(self, seed: int) -> None:
        """Says that the rows of a data seed are made."""
        if self.processes > 1:
            for portion in self.portions:
                if portion.of_seed.seed == seed:
                    self.claims.done(portion)

    def reports(self) -> list[Report]:
        """What each of the other processes has done so far."""
        paths = [self.folder / REPORT.format(number) for number in range(1, len(self._others) + 1)]
        return [Report(**read_json(path)) for path in paths if path.is_file()]

    def _look(self) -> None:
        """Lets the display know what the other processes have made, and says if one is gone."""
        for (seed, row), portion in self._of_row.items():
            if self.claims.is_done(portion):
                self.whole.settle(f"seed {seed}: {row}: ")
        for number, process in enumerate(self._others, 1):
            if (status := process.poll()) is not None and number not in self._ended:
                self._ended[number] = status
                if status:
                    self._mourn(number, status)
        self.whole.processes = 1 + len(self._others) - len(self._ended)

    def _mourn(self, number: int, status: int) -> None:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        said = (self.folder / SAID.format(number)).read_text(encoding="utf-8", errors="replace").strip()
        why = ""
        if said:
            path = self.run_dir / f"process-{number}.txt"
            path.write_text(f"{said}\n", encoding="utf-8")
            why = f", {path} says why"
        console.print(f"warning: a process that worked on this study {how}{why}; the others make its rows")

    def _end(self) -> None:
        forward(signal.SIGTERM, self._others)
        try:
            for process in self._others:
                process.wait(GRACE)
        except BaseException as error:
            kill(self._others)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise


def merge(reports: Sequence[Report], timer: StageTimer, made: list[str]) -> None:
    """Adds what other processes have done to the times and the directories of this one."""
    for report in reports:
        timer.add(report.seconds, report.made)
        made += [path for path in report.directories if path not in made]


def write_report(folder: Path, number: int, timer: StageTimer, made: list[str]) -> None:
    """Tells the process that started this one what this one has done so far."""
    said: dict[str, Any] = {"seconds": timer.seconds, "made": timer.made, "directories": made}
    aside = folder / f"{REPORT.format(number)}.new"
    aside.write_text(json.dumps(said), encoding="utf-8")
    aside.replace(folder / REPORT.format(number))


def _memory() -> int:
    """The bytes of main memory; those for two processes where the system does not say."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return 2 * MEMORY
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
