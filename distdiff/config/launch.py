"""Turns a function of a configuration into a command: compose, validate, then import what is heavy and run."""

import argparse
import itertools
import os
import shutil
import sys
import uuid
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distdiff.config.composition import CONFIG_DIR, compose_jobs, quote_conditions, swept_keys
from distdiff.config.validation import validate
from distdiff.errors import ONWARD, Stopped, UserError
from distdiff.ranks.task import is_one_of_several, leads, run_job

JOB_FAILED, INTERRUPTED = 1, 130
FAILED = "distdiff-error.txt"  # in the directory of a multirun's job that a mistake ended


def command(name: str, task: str, about: str) -> Callable[[], None]:
    """The command `name`, configured by `conf/<name>.yaml`, which runs `task` (`module:function`) in every job.

    The task gets the job's configuration and its run directory. Every job of a multirun is composed and validated before
    the first starts. A `UserError` ends the command with one line and status 2; anything else is ours and keeps its
    traceback.
    """

    def entry() -> None:
        quiet()
        arguments = get_args_parser().parse_intermixed_args()
        OmegaConf.register_new_resolver("about", lambda: about, replace=True)
        sys.argv[1:] = [
            *(item for item in sys.argv[1:] if item not in arguments.overrides),
            *quote_conditions(arguments.overrides),
        ]
        try:
            status = _run(name, task, arguments)
        except (UserError, OmegaConfBaseException) as error:
            mistake = _mistake_behind(error)
            if mistake is None:
                raise
            say(mistake)
            sys.exit(mistake.exit_status)
        except Stopped as stop:
            say(f"{stop}; {ONWARD}")
            sys.exit(stop.exit_status)
        except KeyboardInterrupt:
            say(f"interrupted; {ONWARD}")
            sys.exit(INTERRUPTED)
        if status:
            sys.exit(status)

    return entry


def say(message: object) -> None:
    """One line to the user, apart from what a command prints."""
    print(f"distdiff: {message}", file=sys.stderr)


def _run(name: str, task: str, arguments: argparse.Namespace) -> int:
    """Does what the command line asks for; returns the exit status."""
    if arguments.help or arguments.hydra_help or arguments.info or arguments.shell_completion:
        return _hydra_main(name, task)
    jobs = [validate(job) for job in compose_jobs(name, arguments.overrides, arguments.multirun)]
    if arguments.cfg:
        return _hydra_main(name, task)
    if not all(map(leads, jobs)):
        return _follow(task, jobs)
    _settle_directory(jobs[0], arguments)
    if not arguments.multirun:
        return _hydra_main(name, task)
    # A launcher's processes, perhaps on other hosts, tell nothing else.
    failures = Path(jobs[0].paths.output_dir) / f".failed-{uuid.uuid4().hex}"
    try:
        _hydra_main(name, task, failures)
        return JOB_FAILED if failures.is_dir() else 0
    finally:
        shutil.rmtree(failures, ignore_errors=True)


def _hydra_main(name: str, task: str, failures: Path | None = None) -> int:
    """Runs the job, or every job of a multirun, through Hydra; returns the status of a single run's mistake, or 0.

    The jobs of a multirun that a mistake ended leave a file in `failures`, and in their own directories.
    """
    # Hydra prints and swallows exceptions unless told otherwise; the caller above decides what a user sees.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    statuses, swept = [0], swept_keys(sys.argv[1:])

    def job(config: DictConfig) -> None:
        quiet()  # again: a launcher's process may be a new one
        hydra_config = HydraConfig.get()
        run_dir = Path(hydra_config.runtime.output_dir)
        if hydra_config.mode == RunMode.MULTIRUN:
            given = [item for item in hydra_config.overrides.task if item.split("=")[0] in swept]
            print(f"job {hydra_config.job.num}: {' '.join(given)}", flush=True)
        try:
            run_job(task, validate(config), run_dir)
        except UserError as error:  # not raised: Hydra would add lines of its own, and end a multirun
            say(error)
            statuses.append(error.exit_status)
            if failures is None:
                return
            failures.mkdir(parents=True, exist_ok=True)
            for path in (run_dir / FAILED, failures / f"{hydra_config.job.num}.txt"):
                path.write_text(f"{error}\n", encoding="utf-8")
            if is_one_of_several(config) and not error.shared:
                sys.exit(JOB_FAILED)  # the others cannot know: they are left alone, and told so

    hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=name)(job)()
    return statuses[-1]


def _follow(task: str, jobs: list[DictConfig]) -> int:
    """Takes part in jobs that another process leads, which also has their directories and their console."""
    status = 0
    for job in jobs:
        try:
            run_job(task, job, None)
        except UserError as error:
            if not error.shared:
                raise
            status = error.exit_status if len(jobs) == 1 else JOB_FAILED
    return status


def _settle_directory(job: DictConfig, arguments: argparse.Namespace) -> None:
    """Makes the directory of the run or multirun: `<command>/<date>_<time>`, -1, -2, … where that is taken.

    It becomes an override, so that every process that a launcher of Hydra starts has the same. Where the user overrides
    it, nothing is made.
    """
    key = "hydra.sweep.dir" if arguments.multirun else "hydra.run.dir"
    if any(override.lstrip("+").startswith(f"{key}=") for override in arguments.overrides):
        return
    root = Path(job.paths.output_dir, job.command, *(["multirun"] if arguments.multirun else []))
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in itertools.count():
        path = root / (stamp if attempt == 0 else f"{stamp}-{attempt}")
        try:
            path.mkdir(parents=True)  # whoever makes it has it
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"paths.output_dir={job.paths.output_dir}: cannot write there ({error.strerror})") from None
        quoted = str(path).replace("\\", "\\\\").replace("'", "\\'")
        sys.argv.append(f"{key}='{quoted}'")
        return


def _mistake_behind(error: BaseException | None) -> UserError | None:
    """The user's mistake itself, or the one that OmegaConf wrapped, perhaps more than once, while resolving a value."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def quiet() -> None:
    """Keeps other libraries' notices off the console: a user can act on none of them. Called before they are imported."""
    # Idle OpenMP threads must sleep, or processes that share cores spin against each other a hundredfold slower; but not at
    # once: a short spin makes small models 1.5 times faster (experiments/results/threads.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    warnings.filterwarnings("ignore")
