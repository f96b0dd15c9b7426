"""Runs a command from the command line: composes its jobs, checks all of them, then imports the heavy modules and runs."""

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
FAILED = "distdiff-error.txt"  # in the directory of a multirun's job that a user error ended


def launched(name: str, tasks: Tasks, groups: tuple[Group, ...], about: str) -> Callable[[], None]:
    """The command `name`, configured by `conf/<name>.yaml`, which runs `tasks.run` in every job.

    The task gets the job's configuration and its run directory. Every job of a multirun is composed and validated before
    the first starts. A `UserError` ends the command with one line and status 2; any other error is a bug of ours and keeps
    its traceback.
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
    """Prints one line for the user on stderr, apart from the command's own output."""
    print(f"distdiff: {message}", file=sys.stderr)


class Launch:
    """One call of a command from the command line."""

    def __init__(self, command: Command, tasks: Tasks, about: str) -> None:
        self.command = command
        self.tasks = tasks
        self.about = about

    def run(self, typed: list[str]) -> int:
        """Does what the command line asks for; returns the exit status."""
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
        """Runs the job, or every job of a multirun, through Hydra; returns the exit status of a single run's user error, or 0.

        Each job of a multirun records in `notes` how it ended; a user error is also written to the job's own directory.
        """
        # Hydra prints and swallows exceptions unless told otherwise; the caller above decides what a user sees.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        statuses, swept = [0], swept_keys(sys.argv[1:])
        command, tasks, folders = self.command, self.tasks, [Path.cwd(), *search.folders]

        def job(config: DictConfig) -> None:
            quiet_environment()  # this line and the next again: a launcher may have started a new process
            import_from(*folders)
            hydra_config = HydraConfig.get()
            run_dir = Path(hydra_config.runtime.output_dir)
            given = tuple(hydra_config.overrides.task)
            if notes is not None:
                shown = [item for item in given if item.split("=")[0] in swept]
                print(f"job {hydra_config.job.num}: {' '.join(shown)}", flush=True)
                sweep = str(Path(hydra_config.sweep.dir).absolute())
                swept_job = SweptJob(hydra_config.job.num, sweep, str(run_dir), given)
                notes.write(swept_job)  # now: a killed job writes nothing later
            ending = None
            try:
                composed = Job(command, config, dict(hydra_config.runtime.choices), given, search)
                checked = validate(composed) if notes is None else complete(composed)[0]  # other jobs may read the rest
                run_job(tasks, checked, run_dir)
            except UserError as error:  # not raised again: Hydra would add its own lines, and end a multirun
                say(error)
                statuses.append(error.exit_status)
                ending = str(error)
                if notes is None:
                    return
                (run_dir / FAILED).write_text(f"{error}\n", encoding="utf-8")
                if is_one_of_several(config) and not error.shared:
                    sys.exit(JOB_FAILED)  # the other ranks cannot know: they stop because a rank is gone
            except BaseException as error:
                ending = f"{type(error).__name__}: {first_line(error)}"
                raise
            finally:
                if notes is not None:
                    notes.write(replace(swept_job, error=ending))

        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=command.name)(job)()
        return statuses[-1]


def warnings_about(command: Command, config: DictConfig) -> Iterator[str]:
    """A sentence for each allowed setting that the user may not have meant."""
    for group in command.groups.values():
        if group.warn is not None:
            yield from group.warn(config)


def _follow(tasks: Tasks, jobs: list[DictConfig]) -> int:
    """Takes part in jobs that another process leads; that process has their directories and their console."""
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
    """Makes and returns the directory of the run or multirun, `<command>/<date>_<time>`, with -1, -2, … if that is taken.

    It becomes an override, so that every process that a Hydra launcher starts uses the same directory. If the user
    overrides it, nothing is made and None is returned.
    """
    key = "hydra.sweep.dir" if arguments.multirun else "hydra.run.dir"
    if any(override.lstrip("+").startswith(f"{key}=") for override in arguments.overrides):
        return None
    root = Path(job.paths.output_dir, job.command, *(["multirun"] if arguments.multirun else []))
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in itertools.count():
        path = root / (stamp if attempt == 0 else f"{stamp}-{attempt}")
        try:
            path.mkdir(parents=True)  # the process that makes it owns it
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"paths.output_dir={job.paths.output_dir}: cannot write there ({error.strerror})") from None
        sys.argv.append(f"{key}={in_quotes(str(path))}")
        return path


def _mistake_behind(error: BaseException | None) -> UserError | None:
    """The `UserError` itself, or the one that OmegaConf wrapped, perhaps more than once, while it resolved a value."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error
