"""Hydra's application: it runs a command's jobs, or prints what flags of its own ask for."""

import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import _run_app, _run_hydra, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from distdiff.option_files.search_path import CONFIG_DIR, HydraLoader

HYDRA_RAISES = "HYDRA_FULL_ERROR"


def print_about(arguments: Namespace, name: str) -> None:
    """Prints what `--hydra-help`, `--info` or `--shell-completion` asks for, of the command `name`."""
    with _as_application():
        _run_hydra(arguments, get_args_parser(), lambda config: None, str(CONFIG_DIR), name)


def run_jobs(
    name: str,
    task: Callable[[DictConfig], object],
    overrides: Sequence[str],
    multirun: bool,
    mode: RunMode | None,
    config_dir: str | None,
) -> None:
    """Lets Hydra compose the jobs of the command `name` and call `task` with each.

    This is `hydra.main` without its parsing of the command line, and with a loader that composes nothing twice. `mode`
    is the composed `hydra.mode`. Raises what a job raises.
    """
    with _as_application():
        loader = HydraLoader(config_dir)
        hydra = Hydra(name, loader)
        GlobalHydra.instance().initialize(hydra)
        try:
            _run_app(
                run=not multirun,
                multirun=multirun,
                mode=mode,
                hydra=hydra,
                config_name=name,
                task_function=task,
                overrides=list(overrides),
            )
        finally:
            GlobalHydra.instance().clear()


@contextmanager
def _as_application() -> Iterator[None]:
    """While it lasts, Hydra raises a job's exceptions, which it would print otherwise. `launched` decides what users see."""
    version.setbase("1.3")  # otherwise hydra.job.chdir=null would change the directory
    before = os.environ.get(HYDRA_RAISES)
    os.environ[HYDRA_RAISES] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[HYDRA_RAISES]
        else:
            os.environ[HYDRA_RAISES] = before
