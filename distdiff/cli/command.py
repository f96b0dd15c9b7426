"""Runs a command: composes its jobs, checks all of them, and only then imports the heavy modules and runs the jobs."""

import argparse
import itertools
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from distdiff.cli.importing import import_from
from distdiff.cli.job import Tasks, is_one_of_several, leads, run_job
from distdiff.cli.output import help_text, in_yaml
from distdiff.config.arguments import in_grammar, in_quotes, read_flags
from distdiff.config.checking import complete, validate, validate_jobs
from distdiff.config.command import Command
from distdiff.config.composition import Job, compose_jobs, special_keys, swept_keys
from distdiff.config.options import CONFIG_DIR, OURS, SearchPath
from distdiff.console.quiet import quiet_environment
from distdiff.console.record import discard_empty
from distdiff.errors import ONWARD, Stopped, UserError, first_line
from distdiff.keys import Group
from distdiff.tracking.sweep import SweepNotes, SweptJob, conclude

JOB_FAILED, INTERRUPTED = 1, 130
FAILED = "distdiff-error.txt"  # a file in the directory of a multirun's job that ended with a user error


def launched(name: str, tasks: Tasks, groups: tuple[Group, ...], about: str) -> Callable[[], None]:
    """The entry point of the command `name`. It runs `tasks.run` in every job.

    `conf/<name>.yaml` configures the command. `tasks.run` gets the job's configuration and the job's run directory.
    `about` is the first part of the `--help` text.
    Every job of a multirun is composed and validated before the first starts. A `UserError` ends the command with one
    line on stderr and the error's exit status; any other error is a bug of DistDiff and keeps its traceback.
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
    """Prints one line for the user to stderr; stdout holds the command's own output."""
    print(f"distdiff: {message}", file=sys.stderr)


class Launch:
    """One call of a command from the command line."""

    def __init__(self, command: Command, tasks: Tasks, about: str) -> None:
        self.command = command
        self.tasks = tasks
        self.about = about

    def run(self, typed: list[str]) -> int:
        """Does what the arguments in `typed` ask for, and returns the exit status."""
        arguments = read_flags(typed)
        flags = [item for item in typed if item not in arguments.overrides]
        arguments.overrides = in_grammar(arguments.overrides, *special_keys(self.command))
        sys.argv[1:] = [*flags, *arguments.overrides]
        if arguments.help or arguments.hydra_help or arguments.info or arguments.cfg:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` closes the pipe early
        self.command.register()
        if arguments.hydra_help or arguments.info or arguments.shell_completion:
            return self._hydra_main()
        search = SearchPath.of(arguments.config_dir, arguments.overrides)
        import_from(Path.cwd(), *search.folders)
        jobs = compose_jobs(self.command, arguments.overrides, arguments.multirun, search)
        if arguments.help:
            print(help_text(self.command, self.about, jobs[0]))
            return 0
        configs = validate_jobs(jobs)
        if arguments.cfg == "job":
            print(in_yaml(jobs[0], configs[0], arguments.package, arguments.resolve), end="")
            return 0
        if arguments.cfg:
            return self._hydra_main()
        if not all(map(leads, configs)):
            return _follow(self.tasks, configs)
        warnings = [warning for config in configs for warning in warnings_about(self.command, config)]
        for warning in dict.fromkeys(warnings):
            say(warning)
        own = _settle_directory(configs[0], arguments)
        if not arguments.multirun:
            status = self._hydra_main(search)
            if status == UserError.exit_status and own is not None:
                discard_empty(own)
            return status
        notes = SweepNotes(Path(configs[0].paths.output_dir).absolute() / f".sweep-{uuid.uuid4().hex}")
        try:
            self._hydra_main(search, notes)
        finally:
            ended = notes.jobs()
            notes.forget()
            conclude(ended)
        return JOB_FAILED if any(job.error for job in ended) else 0

    def _hydra_main(self, search: SearchPath = OURS, notes: SweepNotes | None = None) -> int:
        """Runs the job, or every job of a multirun, through Hydra.

        Returns the exit status of a user error in a single run, and 0 if no user error occurred. Each job of a multirun
        records in `notes` how the job ended, and also writes a user error to a file in the job's directory.
        """
        # Without this variable, Hydra would print exceptions and not raise them. `launched` decides what the user sees.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        statuses, swept = [0], swept_keys(sys.argv[1:])
        command, tasks, folders = self.command, self.tasks, [Path.cwd(), *search.folders]

        def job(config: DictConfig) -> None:
            quiet_environment()  # again, like the next line, because a Hydra launcher may have started a new process
            import_from(*folders)
            hydra_config = HydraConfig.get()
            run_dir = Path(hydra_config.runtime.output_dir)
            given = tuple(hydra_config.overrides.task)
            if notes is not None:
                shown = [item for item in given if item.split("=")[0] in swept]
                print(f"job {hydra_config.job.num}: {' '.join(shown)}", flush=True)
                sweep = str(Path(hydra_config.sweep.dir).absolute())
                swept_job = SweptJob(hydra_config.job.num, sweep, str(run_dir), given)
                notes.write(swept_job)  # written already now, because a killed job writes nothing later
            ending = None
            try:
                composed = Job(command, config, dict(hydra_config.runtime.choices), given, search)
                # In a multirun, a key that this job does not read may be for another job. `run` has checked every key.
                checked = validate(composed) if notes is None else complete(composed)[0]
                run_job(tasks, checked, run_dir)
            except UserError as error:
                # The error is not raised again, because Hydra would then add its own lines and end the multirun.
                say(error)
                statuses.append(error.exit_status)
                ending = str(error)
                if notes is None:
                    return
                (run_dir / FAILED).write_text(f"{error}\n", encoding="utf-8")
                if is_one_of_several(config) and not error.shared:
                    sys.exit(JOB_FAILED)  # the other ranks do not know this error; they stop because this rank is gone
            except BaseException as error:
                ending = f"{type(error).__name__}: {first_line(error)}"
                raise
            finally:
                if notes is not None:
                    notes.write(replace(swept_job, error=ending))

        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=command.name)(job)()
        return statuses[-1]


def warnings_about(command: Command, config: DictConfig) -> Iterator[str]:
    """Yields a sentence for each setting that is allowed but that the user may not have meant."""
    for group in command.groups.values():
        if group.warn is not None:
            yield from group.warn(config)


def _follow(tasks: Tasks, jobs: list[DictConfig]) -> int:
    """Takes part in `jobs` that another process leads. Only that process writes to run directories and the console."""
    status = 0
    for job in jobs:
        try:
            run_job(tasks, job, None)
        except UserError as error:
            if not error.shared:
                raise
            status = error.exit_status if len(jobs) == 1 else JOB_FAILED
    return status


def _settle_directory(job: DictConfig, arguments: argparse.Namespace) -> Path | None:
    """Makes and returns the directory of the run or multirun.

    The directory is `<command>/<date>_<time>` or, for a multirun, `<command>/multirun/<date>_<time>`. If a directory of
    this name exists, -1, -2, … is added to the name.
    The directory is added to the command line as an override, so that every process that a Hydra launcher starts uses
    this directory. If the user has overridden the directory, no directory is made and None is returned.
    """
    key = "hydra.sweep.dir" if arguments.multirun else "hydra.run.dir"
    if any(override.lstrip("+").startswith(f"{key}=") for override in arguments.overrides):
        return None
    root = Path(job.paths.output_dir, job.command, *(["multirun"] if arguments.multirun else []))
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in itertools.count():
        path = root / (stamp if attempt == 0 else f"{stamp}-{attempt}")
        try:
            path.mkdir(parents=True)  # an existing directory is an error, so no two processes get the same one
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"paths.output_dir={job.paths.output_dir}: cannot write there ({error.strerror})") from None
        sys.argv.append(f"{key}={in_quotes(str(path))}")
        return path


def _mistake_behind(error: BaseException | None) -> UserError | None:
    """The `UserError` that is `error` itself or one of its causes (OmegaConf wraps errors); None if neither is one."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error
