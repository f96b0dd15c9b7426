"""Runs one job: in this process alone, or in several processes."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from distdiff.cli.performing import perform, require_device
from distdiff.console.record import recording
from distdiff.ranks.arrangement import Node, Rank, arrangement
from distdiff.ranks.launcher import run_ranks

MEMBER = "distdiff.cli.member"


@dataclass(frozen=True)
class Tasks:
    """A command's two functions, each given as `module:function` and imported only when it is called.

    `run` does the work of the command; `fetch` downloads the models and data that this work needs. Both functions take
    a configuration and a run directory. `returns_figure` is False if `run` returns no number that a sweeper could optimise.
    """

    run: str
    fetch: str
    returns_figure: bool = True


def run_job(tasks: Tasks, config: DictConfig, run_dir: Path | None, warnings: Sequence[str] = ()) -> float | None:
    """Runs a job in as many processes as the job's `trainer` keys ask for. Returns the number that the task returned.

    In a process that does not lead the job, `run_dir` is None: the leading process sends the directory to the others.
    `warnings` were printed before the first job began, and are added to the job's log.
    If `fetch_only` is set, the job is not run. This process alone then downloads what the job needs, even if the job
    asks for several devices.
    """
    place = _place(config)
    with nullcontext() if run_dir is None else recording(config, run_dir, warnings):
        if isinstance(place, Node):
            return run_ranks(place, MEMBER, tasks.run, config, run_dir)
        if place is None and not config.fetch_only:
            require_device(config.trainer.accelerator)
        return perform(tasks.fetch if config.fetch_only else tasks.run, config, run_dir, place)


def is_one_of_several(config: DictConfig) -> bool:
    """Whether this process was started as a rank, to run all jobs of a multirun together with the same other ranks."""
    return isinstance(_place(config), Rank)


def is_swept() -> bool:
    """Whether this process runs a job of a multirun, whose jobs usually follow each other in one process."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def leads(config: DictConfig) -> bool:
    """Whether this process leads its job. Only the leading process writes to the run directory and the console."""
    place = _place(config)
    return place is None or place.leads


def _place(config: DictConfig) -> Rank | Node | None:
    """This process's part in the job; None if this process does the job alone, as it always does for `fetch_only`."""
    return None if config.fetch_only else arrangement(config.trainer)
