"""Runs one job: here, or as one of several processes."""

from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

from omegaconf import DictConfig

from distdiff.console.output import LOG, console
from distdiff.console.quiet import quiet_libraries
from distdiff.console.record import recording
from distdiff.ranks.arrangement import Node, Rank, arrangement
from distdiff.ranks.launcher import run_ranks

FETCH = "distdiff.commands.fetching:fetch"


def run_job(task: str, config: DictConfig, run_dir: Path | None) -> None:
    """Runs `task` (`module:function` of a configuration and a run directory) in as many processes as `trainer` asks for.

    `run_dir` is None in processes that do not lead: they are told it by the one that does. With `fetch_only` no job is
    done: what it needs is downloaded, here, whatever devices it asks for.
    """
    place = _place(config)
    with nullcontext() if run_dir is None else recording(config, run_dir):
        if isinstance(place, Node):
            run_ranks(place, task, config, run_dir)
        else:
            perform(FETCH if config.fetch_only else task, config, run_dir, place)


def perform(task: str, config: DictConfig, run_dir: Path | None, place: Rank | None) -> None:
    """Runs `task` in this process, as the rank at `place`, if it is one."""
    if place is None:
        with console.logging_to(run_dir / LOG):
            _imported(task)(config, run_dir)
        return
    from distdiff.ranks.world import join

    world = join(place)
    console.quiet = not world.leads
    run_dir = world.once(lambda: run_dir)
    with console.logging_to(run_dir / LOG) if world.leads else nullcontext():
        _imported(task)(config, run_dir)
    world.part()


def _imported(task: str) -> Callable[[DictConfig, Path], object]:
    """The function that `task` names; its module imports what is heavy, which is silenced then."""
    module, function = task.split(":")
    found = getattr(import_module(module), function)
    quiet_libraries()
    return found


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
