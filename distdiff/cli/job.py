"""Runs one job: here, or as one of several processes."""

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
    """What a command does, `module:function` each, of a configuration and a run directory: imported when it is done.

    `run` is the command itself, `fetch` downloads what it needs.
    """

    run: str
    fetch: str


def run_job(tasks: Tasks, config: DictConfig, run_dir: Path | None) -> None:
    """Runs a job in as many processes as `trainer` asks for.

    `run_dir` is None in processes that do not lead: they are told it by the one that does. With `fetch_only` no job is
    done: what it needs is downloaded, here, whatever devices it asks for.
    """
    place = _place(config)
    with nullcontext() if run_dir is None else recording(config, run_dir):
        if isinstance(place, Node):
            run_ranks(place, MEMBER, tasks.run, config, run_dir)
        else:
            perform(tasks.fetch if config.fetch_only else tasks.run, config, run_dir, place)


def is_one_of_several(config: DictConfig) -> bool:
    """Whether this process was started as a rank, and goes on to the next job of a multirun with the same others."""
    return isinstance(_place(config), Rank)


def leads(config: DictConfig) -> bool:
    """Whether this process has a run directory and a console of its own; the others of its job follow it."""
    place = _place(config)
    return place is None or place.leads


def _place(config: DictConfig) -> Rank | Node | None:
    """This process's part in the job; downloading is done by one alone."""
    return None if config.fetch_only else arrangement(config.trainer)
