"""Runs a command's task in this process."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path

from omegaconf import DictConfig

from distdiff.cli.importing import uncollected
from distdiff.console.output import LOG, console
from distdiff.console.quiet import quiet_libraries
from distdiff.console.working import Working
from distdiff.ranks.arrangement import ON_GPU, Rank, require_gpu

LOADING = "loading torch, lightning and other libraries"
PATIENCE = 10.0  # seconds of loading after which a console that is no terminal says so


def perform(task: str, config: DictConfig, run_dir: Path | None, place: Rank | None) -> float | None:
    """Runs `task` (`module:function`) in this process: as the rank `place`, or alone if `place` is None.

    Returns what the task returns if that is a number; a sweeper may optimise it.
    """
    if place is None:
        with console.logging_to(run_dir / LOG):
            return _figure(_imported(task)(config, run_dir))
    console.quiet = not place.leads
    with _loading("torch"):
        from distdiff.ranks.world import join  # imports torch, which a job of one process may never need

    world = join(place)
    run_dir = world.once(lambda: run_dir)
    with console.logging_to(run_dir / LOG) if world.leads else nullcontext():
        figure = _figure(_imported(task)(config, run_dir))
    world.part()
    return figure


def require_device(accelerator: str) -> None:
    """Raises `UserError` if there is no GPU although one is asked for, before other libraries than torch are imported."""
    with _loading("torch") if accelerator in ON_GPU else nullcontext():
        require_gpu(accelerator)


def was_rank() -> bool:
    """Whether this process has joined others for a job."""
    ranks = sys.modules.get(
        "distdiff.ranks.world"
    )  # importing it takes seconds, and who has not imported it has not joined
    return ranks is not None and ranks.world().size > 1


def end_now(status: int) -> None:
    """Ends this process, a rank whose work is done, with the exit status `status`.

    The interpreter is not shut down: threads of other libraries could then abort the process or keep it alive, and other
    ranks would wait for it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _figure(returned: object) -> float | None:
    return float(returned) if isinstance(returned, (int, float)) else None


def _imported(task: str) -> Callable[[DictConfig, Path], object]:
    """Imports the function that `task` names, then silences the libraries that its module imported."""
    module, function = task.split(":")
    with _loading(module):
        found = getattr(import_module(module), function)
    quiet_libraries()
    return found


@contextmanager
def _loading(module: str) -> Iterator[None]:
    """Says that libraries are being loaded while the block lasts, which imports `module` if that is not done yet."""
    if module in sys.modules:
        yield
    else:
        with Working(LOADING, PATIENCE).shown(), uncollected():
            yield
