"""Runs one job: in this process alone, or in several processes."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from distdiff.cli.performing import perform
from distdiff.console.record import recording
from distdiff.ranks.arrangement import Node, Rank, arrangement
from distdiff.ranks.launcher import run_ranks

MEMBER = "distdiff.cli.member"


@dataclass(frozen=True)
class Tasks:
    """A command's functions of a configuration and a run directory, each as `module:function` and imported only when called.

    `run` is the command itself; `fetch` downloads what it needs.
    """

    run: str
    fetch: str


def run_job(tasks: Tasks, config: DictConfig, run_dir: Path | None) -> None:
    """Runs a job in as many processes as `trainer` asks for.

    `run_dir` is None in processes that do not lead: the leading process sends it to them. With `fetch_only` the job is not
    run: this process alone downloads what it needs, whatever devices it asks for.
    """
    place = _place(config)
    with nullcontext() if run_dir is None else recording(config, run_dir):
        if isinstance(place, Node):
            run_ranks(place, MEMBER, tasks.run, config, run_dir)
        else:
            perform(tasks.fetch if config.fetch_only else tasks.run, config, run_dir, place)


def is_one_of_several(config: DictConfig) -> bool:
    """Whether this process was started as a rank, and so runs all jobs of a multirun together with the same other ranks."""
    return isinstance(_place(config), Rank)


def leads(config: DictConfig) -> bool:
    """Whether this process leads its job: it has the run directory and the console, and the other processes follow it."""
    place = _place(config)
    return place is None or place.leads


def _place(config: DictConfig) -> Rank | Node | None:
    """This process's part in the job; None for downloading, which one process does alone."""
    return None if config.fetch_only else arrangement(config.trainer)
