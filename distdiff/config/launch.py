"""Turns a function of a configuration into a command: compose, validate, then import what is heavy and run."""

import argparse
import functools
import os
import sys
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distdiff.config.composition import CONFIG_DIR, compose_jobs
from distdiff.config.validation import validate
from distdiff.errors import Stopped, UserError

JOB_FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130


def command(name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Decorates `task(config)` as the command `name`, configured by `conf/<name>.yaml`.

    Every job of a multirun is composed and validated before the first starts. A `UserError` ends the command with one
    line and status 2; anything else is ours and keeps its traceback.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(task)
        def entry() -> None:
            quiet()
            arguments = get_args_parser().parse_args()
            OmegaConf.register_new_resolver("run_directory", _run_directory(arguments), replace=True)
            OmegaConf.register_new_resolver("about", lambda: task.__globals__["__doc__"], replace=True)
            try:
                if not _only_informs(arguments):
                    for job in compose_jobs(name, arguments.overrides, arguments.multirun):
                        validate(job)
                failures = _hydra_main(name, task)
            except (UserError, OmegaConfBaseException) as error:
                mistake = _mistake_behind(error)
                if mistake is None:
                    raise
                _say(mistake)
                sys.exit(USER_ERROR)
            except Stopped as stop:
                _say(f"{stop}; what is finished is kept, and the same command goes on from there")
                sys.exit(stop.exit_status)
            except KeyboardInterrupt:
                _say("interrupted; what is finished is kept, and the same command goes on from there")
                sys.exit(INTERRUPTED)
            if failures:
                sys.exit(JOB_FAILED if arguments.multirun else USER_ERROR)

        return entry

    return decorate


def run_directory() -> Path:
    """The directory of the run in progress."""
    return Path(HydraConfig.get().runtime.output_dir)


def _hydra_main(name: str, task: Callable[[DictConfig], None]) -> list[UserError]:
    """Runs the job, or every job of a multirun; returns the user's mistakes that ended some of them."""
    # Hydra prints and swallows exceptions unless told otherwise; the caller above decides what a user sees.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    failures = []

    def job(config: DictConfig) -> None:
        try:
            task(validate(config))
        except UserError as error:  # not raised: Hydra would add lines of its own
            _say(error)
            failures.append(error)

    hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=name)(job)()
    return failures


def _mistake_behind(error: BaseException | None) -> UserError | None:
    """The user's mistake itself, or the one that OmegaConf wrapped, perhaps more than once, while resolving a value."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _say(message: object) -> None:
    print(f"distdiff: {message}", file=sys.stderr)


def _only_informs(arguments: argparse.Namespace) -> bool:
    return bool(arguments.help or arguments.hydra_help or arguments.info or arguments.shell_completion)


def _run_directory(arguments: argparse.Namespace) -> Callable[[str, str], str]:
    """The resolver behind `hydra.run.dir`: `<root>/<command>/<date>_<time>`, -1, -2, … where that is taken."""

    @functools.cache  # Hydra asks several times; one process has one directory
    def resolve(root: str, command_path: str) -> str:
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        for attempt in range(1000):
            path = Path(root) / command_path / (stamp if attempt == 0 else f"{stamp}-{attempt}")
            if arguments.cfg:
                return str(path)
            try:
                path.mkdir(parents=True)  # whoever makes it has it
            except FileExistsError:
                continue
            except OSError as error:
                raise UserError(f"paths.output_dir={root}: cannot write there ({error.strerror})") from None
            return str(path)
        raise UserError(f"paths.output_dir={root}: no free directory for {stamp}")

    return resolve


def quiet() -> None:
    """Keeps other libraries' notices off the console: a user can act on none of them. Called before they are imported."""
    # Idle OpenMP threads must sleep, or processes that share cores spin against each other a hundredfold slower; but not at
    # once: a short spin makes small models 1.5 times faster (experiments/results/threads.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    warnings.filterwarnings("ignore")
