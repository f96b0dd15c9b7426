"""Runs a command: composes its jobs, checks all of them, and only then lets Hydra run them."""

import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distdiff.cli import hydra_app
from distdiff.cli.directories import register_directories
from distdiff.cli.endings import JOB_FAILED, Endings
from distdiff.cli.importing import import_from
from distdiff.cli.job import Tasks, leads, run_job
from distdiff.cli.output import ending_with_the_pipe, help_text, in_yaml, say
from distdiff.cli.performing import end_now, was_rank
from distdiff.cli.task import HydraTask
from distdiff.config.arguments import read_flags
from distdiff.config.checking import validate_jobs
from distdiff.config.command import Command
from distdiff.config.composing import Job, compose_jobs, search_path_of
from distdiff.config.sweeping import number_of_trials
from distdiff.console.quiet import quiet_environment
from distdiff.console.working import Working
from distdiff.errors import Stopped, UserError, onward
from distdiff.keys import Group
from distdiff.option_files.overrides import parse
from distdiff.option_files.search_path import OURS, SearchPath
from distdiff.ranks.arrangement import may_follow

INTERRUPTED = 130
PATIENCE = 0.3  # seconds of checking after which a console that is no terminal says so; most mistakes are found before
ACCURACY = "accuracy"
NO_TRIALS = "No trials are completed"  # what Optuna says once all of its jobs have failed


def launched(name: str, tasks: Tasks, groups: tuple[Group, ...], about: str) -> Callable[[], None]:
    """The entry point of the command `name`. It runs `tasks.run` in every job.

    `conf/<name>.yaml` configures the command. `tasks.run` gets the job's configuration and the job's run directory.
    `about` is the first part of the `--help` text.
    Every job of a multirun is composed and validated before the first starts, unless a sweeper chooses jobs as it goes. A
    `UserError` ends the command with one line on stderr and the error's exit status; any other error is a bug of DistDiff
    and keeps its traceback.
    """
    launch = Launch(Command(name, groups), tasks, about)

    def entry() -> None:
        quiet_environment()
        try:
            status = launch.run(sys.argv[1:])
        except (UserError, OmegaConfBaseException) as error:
            mistake = _mistake_behind(error)
            if mistake is None:
                raise
            if mistake.said:  # a job's error, with which a sweeper that chooses jobs as it goes ended
                sys.exit(JOB_FAILED)
            say(mistake)
            sys.exit(mistake.exit_status)
        except Stopped as stop:
            say(onward(stop))
            sys.exit(stop.exit_status)
        except KeyboardInterrupt as stop:
            say(onward(stop))
            sys.exit(INTERRUPTED)
        if was_rank():
            end_now(status)
        if status:
            sys.exit(status)

    return entry


class Launch:
    """One call of a command from the command line."""

    def __init__(self, command: Command, tasks: Tasks, about: str) -> None:
        self.command = command
        self.tasks = tasks
        self.about = about

    def run(self, typed: list[str]) -> int:
        """Does what the arguments in `typed` ask for, and returns the exit status."""
        arguments = read_flags(typed)
        only_prints = bool(arguments.help or arguments.hydra_help or arguments.info or arguments.cfg)
        with ending_with_the_pipe() if only_prints else nullcontext():
            return self._run(arguments, only_prints)

    def _run(self, arguments: Namespace, only_prints: bool) -> int:
        self.command.register()
        register_directories(make=not only_prints)

        if arguments.hydra_help or arguments.info or arguments.shell_completion:
            arguments.overrides = [] if arguments.hydra_help else arguments.overrides  # Hydra's help composes no job
            hydra_app.print_about(arguments, self.command.name)
            return 0
        search = search_path_of(arguments.config_dir, arguments.overrides)
        import_from(Path.cwd(), *search.folders)
        checking = Working(f"{self.command.name}: checking the configuration", PATIENCE)
        with nullcontext() if only_prints or may_follow() else checking.shown():
            jobs = self._jobs(arguments.overrides, arguments.multirun, search)
            if only_prints and jobs[0].sample:
                jobs = jobs[:1]
            configs = [] if arguments.help else validate_jobs(jobs)
        if arguments.help:
            print(help_text(self.command, self.about, jobs[0]))
            return 0
        if arguments.cfg:
            print(in_yaml(jobs[0], configs[0], arguments.cfg, arguments.package, arguments.resolve), end="")
            return 0
        if jobs[0].sample:
            if not self.tasks.returns_figure:
                raise UserError(
                    f"{self.command.name} returns no figure that a sweeper could optimise: the command run returns "
                    "study.objective of the row `chosen`, and train returns the accuracy"
                )
            _check_sweeper(jobs[0])
        if not all(map(leads, configs)):
            return _follow(self.tasks, configs, chosen_as_it_goes=jobs[0].sample)
        warnings = [warning for config in configs for warning in self.command.warnings(config)]
        for warning in dict.fromkeys(warnings):
            say(f"warning: {warning}")
        Endings.latest, Endings.ours, Endings.total = None, True, _number_of(jobs)
        try:
            with checking.shown():  # until the first job begins
                task = HydraTask(self.command, self.tasks, search, (Path.cwd(), *search.folders))
                mode = jobs[0].config.hydra.mode
                hydra_app.run_jobs(
                    self.command.name, task, arguments.overrides, arguments.multirun, mode, arguments.config_dir
                )
        except (UserError, OmegaConfBaseException):
            raise
        except Exception as error:
            if Endings.latest is None or not Endings.latest.has_begun():
                raise UserError(f"Hydra cannot begin the job: {_reason(error)}") from None
            if jobs[0].sample and NO_TRIALS in str(error):
                return JOB_FAILED  # each job has said why it failed
            raise  # a bug of DistDiff
        finally:
            status = Endings.conclude_latest()
        return status

    def _jobs(self, overrides: list[str], multirun: bool, search: SearchPath = OURS) -> list[Job]:
        """The command's jobs: those of a multirun if `-m` is given or if the configuration sets `hydra.mode=MULTIRUN`."""
        if not multirun and any(override.is_sweep_override() for override in parse(overrides)):
            single = [override.input_line for override in parse(overrides) if not override.is_sweep_override()]
            multirun = compose_jobs(self.command, single, False, search)[0].config.hydra.mode == RunMode.MULTIRUN
        jobs = compose_jobs(self.command, overrides, multirun, search)
        if not multirun and jobs[0].config.hydra.mode == RunMode.MULTIRUN:
            return compose_jobs(self.command, overrides, True, search)
        return jobs


def _number_of(jobs: list[Job]) -> int | None:
    """How many jobs there will be; None if a sweeper chooses them as it goes and does not say how many."""
    return number_of_trials(jobs[0].config.hydra.sweeper) if jobs[0].sample else len(jobs)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: cannot write there ({error.strerror})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines) or f"{type(error).__name__}, such as for a kind of sweep that the sweeper does not know"


def _check_sweeper(job: Job) -> None:
    """Raises `UserError` if a sweeper that optimises what jobs return would look for the lowest accuracy."""
    sweeper = job.config.hydra.sweeper
    if OmegaConf.is_list(sweeper.get("direction")):
        raise UserError(
            f"hydra.sweeper.direction={sweeper.direction} is not allowed: one direction, for the one figure of a job"
        )
    objective = job.config.get("study", {}).get("objective", ACCURACY)
    # Where sweepers say whether they minimise, which all of them do by default, and the value that makes them maximise.
    minimising = {
        "direction": (str(sweeper.get("direction")).rpartition(".")[2].lower() == "minimize", "maximize"),  # Optuna
        "optim.maximize": (OmegaConf.select(sweeper, "optim.maximize") is False, "true"),  # Nevergrad
        "ax_config.experiment.minimize": (OmegaConf.select(sweeper, "ax_config.experiment.minimize") is True, "false"),
    }
    for name, (minimises, opposite) in minimising.items():
        if not minimises or objective != ACCURACY:
            continue
        raise UserError(
            f"the sweeper would look for the lowest accuracy: type hydra.sweeper.{name}={opposite}, or another "
            "study.objective"
        )


def _follow(tasks: Tasks, jobs: list[DictConfig], chosen_as_it_goes: bool) -> int:
    """Takes part in `jobs` that another process leads. Only that process writes to run directories and the console."""
    if chosen_as_it_goes:
        raise UserError(
            "a sweeper that chooses jobs as it goes cannot run in ranks that srun or torchrun has started: start one process"
        )
    status = 0
    for job in jobs:
        try:
            run_job(tasks, job, None)
        except UserError as error:
            if not error.shared:
                raise
            status = error.exit_status if len(jobs) == 1 else JOB_FAILED
    return status


def _mistake_behind(error: BaseException | None) -> UserError | None:
    """The `UserError` that is `error` itself or one of its causes (OmegaConf wraps errors); None if neither is one."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error
