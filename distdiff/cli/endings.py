"""Hydra's callback that reports how jobs end, and concludes a multirun with a table."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from distdiff.cli.output import say
from distdiff.cli.pace import Pace
from distdiff.config.composing import BASIC_SWEEPER
from distdiff.console.working import Working
from distdiff.errors import UserError, first_line
from distdiff.keys import TARGET
from distdiff.option_files.overrides import parse
from distdiff.tracking.sweep import SweptJob, SweptJobs, conclude, figures_in

JOB_FAILED = 1
BASIC_LAUNCHER = f"{BasicLauncher.__module__}.{BasicLauncher.__name__}"


class Endings(Callback):
    """Reports each `UserError` in one line. In a multirun, keeps a record of each job, and ends with a table of all jobs.

    `conf/settings.yaml` adds this callback to Hydra's. In another application, which has composed that file, it does
    nothing. `status` is the command's exit status so far.
    """

    ours: ClassVar[bool] = False  # True once a command of DistDiff runs jobs in this process
    total: ClassVar[int | None] = None  # the number of its jobs, if it is known
    latest: ClassVar["Endings | None"] = None

    def __init__(self) -> None:
        Endings.latest = self
        self.is_ours = Endings.ours  # not of the class, so that the processes of a Hydra launcher get it too
        self.status = 0
        self.swept: set[str] = set()
        self.jobs: SweptJobs | None = None
        self.pace: Pace | None = None  # where the jobs of a multirun run one after the other in this process
        self.continues = True  # whether the jobs after one that failed are run
        self.begun = False  # whether this process has begun a job
        for name in ("hydra", "hydra_plugins") if self.is_ours else ():  # their reports on failed jobs only repeat ours
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if not self.is_ours:
            return
        self.jobs = SweptJobs(Path(config.hydra.sweep.dir).absolute())
        self.jobs.forget()
        params = config.hydra.sweeper.get("params") or {}
        self.swept = _swept_keys(config.hydra.overrides.task) | {str(name) for name in params}
        self.continues = config.hydra.sweeper[TARGET] == BASIC_SWEEPER
        if Endings.total is not None and config.hydra.launcher[TARGET] == BASIC_LAUNCHER:
            self.pace = Pace(Endings.total)
        if "optuna" in config.hydra.sweeper[TARGET]:
            import optuna  # imported only here, because it is an extra

            optuna.logging.set_verbosity(optuna.logging.WARNING)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        self.begun = True
        Working.end()
        if self.jobs is not None:
            job = self._job(config)
            if job.number == 0:
                print(f"{config.command}: multirun, directory {job.sweep}", flush=True)
            shown = [item for item in job.overrides if item.split("=")[0] in self.swept]
            print(f"job {job.number}: {' '.join(shown)}", flush=True)
            self.jobs.write(job)  # written already now, because a killed job writes nothing later

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        # `job_return.return_value` would print a line of Hydra's and raise the error.
        error = job_return._return_value if job_return.status == JobStatus.FAILED else None
        if isinstance(error, UserError) and self.is_ours:
            say(error)
            error.said = True
            self.status = error.exit_status
            if self.continues:  # otherwise the error would end the multirun; other sweepers count failures
                job_return.status, job_return.return_value = JobStatus.COMPLETED, None
        if self.jobs is not None:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            job = self._job(config)
            # The figures are read now, because a later job may use the same directory.
            figures = {} if error is not None else figures_in(Path(job.directory))
            self.jobs.write(replace(job, error=error and f"{kind}{first_line(error)}", figures=figures))
        if self.pace is not None:
            self.pace.count(failed=error is not None)
            if (self.continues or error is None) and (words := self.pace.words()):  # else the sweep may end here
                print(words, flush=True)

    def has_begun(self) -> bool:
        """Whether any job has begun, in this process or in one that a Hydra launcher has started."""
        return self.begun or (self.jobs is not None and bool(self.jobs.read()))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        self.conclude()

    def conclude(self) -> None:
        """Prints the table of a multirun's jobs, once."""
        if self.jobs is not None:
            jobs, self.jobs = self.jobs.read(), None
            conclude(jobs)
            self.status = JOB_FAILED if any(job.error for job in jobs) else 0

    @classmethod
    def conclude_latest(cls) -> int:
        """Concludes a multirun that ended without `on_multirun_end`, such as one that a signal or a bug stopped.

        Returns the command's exit status.
        """
        status = 0
        if cls.latest is not None:  # otherwise the user has taken this callback out
            cls.latest.conclude()
            status = cls.latest.status
        Conclusion.conclude_waiting()
        return status

    def _job(self, config: DictConfig) -> SweptJob:
        hydra = config.hydra
        sweep = str(self.jobs.folder.parent)
        return SweptJob(hydra.job.num, sweep, str(hydra.runtime.output_dir), tuple(hydra.overrides.task))


class Conclusion(Callback, ABC):
    """A callback of Hydra's that concludes a multirun of ours: `conclude` is called once, however the multirun ends.

    Hydra calls `on_multirun_end` only where no job has ended with a bug and no signal has stopped the multirun; else
    `Endings.conclude_latest` calls `conclude`. Hydra ends its callbacks in reverse order, so one that stands before
    `Endings` in `conf/settings.yaml` concludes after it. `conclude` must not raise.
    """

    waiting: ClassVar[list[tuple["Conclusion", str, Path]]] = []

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if Endings.ours:
            Conclusion.waiting.append((self, config.command, Path(config.hydra.sweep.dir).absolute()))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        for item in [item for item in Conclusion.waiting if item[0] is self]:
            Conclusion.waiting.remove(item)
            self.conclude(*item[1:])

    @abstractmethod
    def conclude(self, command: str, directory: Path) -> None:
        """Concludes the multirun of `command` in `directory`, whose jobs `SweptJobs(directory)` has recorded."""

    @classmethod
    def conclude_waiting(cls) -> None:
        """Concludes the multiruns that have ended without `on_multirun_end`."""
        while cls.waiting:
            callback, command, directory = cls.waiting.pop(0)
            callback.conclude(command, directory)


def _swept_keys(overrides: Iterable[str]) -> set[str]:
    """The keys and groups to which `overrides` give several values, one per job."""
    return {override.get_key_element() for override in parse(overrides) if override.is_sweep_override()}
