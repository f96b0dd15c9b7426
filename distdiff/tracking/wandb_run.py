"""Begins and ends a W&B run. Neither waits long for a server, and without a server the run is kept on this disk.

A setting is what was typed, else what W&B's environment variables and settings files say, else our default.
"""

import contextlib
import os
import shlex
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import wandb
from wandb.errors import AuthenticationError, UsageError
from wandb.sdk import wandb_setup
from wandb.sdk.lib import module
from wandb.sdk.wandb_run import Run

from distdiff.console.output import console
from distdiff.errors import UserError, first_line
from distdiff.tracking.run_ids import keep_id, kept_id
from distdiff.tracking.sweep import multirun_of
from distdiff.tracking.wandb_settings import MOST_CHARACTERS, WITHOUT_SERVER, mode_of_environment

PROJECT = "distdiff"
INIT_TIMEOUT = 20.0  # seconds for a server to accept a run; W&B's own default is 90
FINISH_TIMEOUT = 60.0  # seconds to upload what is left at the end of a run; W&B's own default is no limit
GRACE = 10.0  # seconds after the limit on uploading in which W&B itself may end
SERVICE = "wandb-core"  # the name of its service process
BRANCHING = ("resume_from", "fork_from")


def begin(run_dir: Path, command: str, typed: Mapping[str, Any], title: str | None = None) -> Run:
    """Begins a W&B run with the `typed` settings, or continues the run whose id is kept in `run_dir`.

    Without another name, the run is called `title` or, if that is None, like the run's directory.

    The run is online if W&B finds an API key for its server, and offline otherwise. If the server cannot be reached or
    refuses the run, the run is offline too, after one line that says why. Raises `UserError` if `typed` demands a
    run that the server does not have, or a login that is missing.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    if wandb.run is not None:
        wandb.finish()  # W&B looks for no key while a run goes on
    if wandb_setup.singleton().did_environment_change():
        wandb.teardown()  # W&B reads the environment only once
    own = wandb.setup().settings
    settings = _defaults(run_dir, command, title, own) | dict(typed) | {"finish_timeout_raises": True}
    settings["mode"] = _mode(typed, own)
    _continue(settings, own, run_dir)
    run = _init(settings, own.base_url)
    if settings["mode"] != "disabled":
        keep_id(run_dir, run.id)
    return run


def end(run: Run, exit_status: int) -> None:
    """Ends a run. If not all of it is on the server, prints the command that uploads it."""
    folder = shlex.quote(str(Path(run.settings.sync_dir).absolute()))
    limit = run.settings.finish_timeout
    try:
        with _at_most(limit + GRACE if limit and not run.offline else None) as too_late:
            run.finish(exit_code=exit_status)
    except Exception as error:  # the job's results matter more than its charts
        reason = f"no answer in {limit:g} s" if too_late.is_set() else first_line(error).rstrip(".")
        online = "" if run.offline else "--include-online "
        console.print(f"W&B      not all of the run could be uploaded ({reason}): wandb sync {online}{folder}")
        if not isinstance(error, TimeoutError):
            _restart_service()
        return
    if run.offline:
        console.print(f"W&B      offline, to upload it: wandb sync {folder}")


@contextmanager
def _at_most(seconds: float | None) -> Iterator[threading.Event]:
    """Ends W&B's service process if the block takes longer, so that W&B raises an error in the block.

    W&B's own limit does not hold while the service process waits for a server that is to take an artifact. Yields an event
    that is set when the process was ended. None is no limit.
    """
    too_late = threading.Event()

    def end_service() -> None:
        too_late.set()
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if child.name().startswith(SERVICE):
                    child.kill()

    timer = threading.Timer(seconds or 0, end_service)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield too_late
    finally:
        timer.cancel()


def _defaults(run_dir: Path, command: str, title: str | None, own: wandb.Settings) -> dict[str, Any]:
    """Our defaults, without the settings that W&B's environment and files give.

    All jobs of a multirun share a group, which is named after the multirun's directory. A W&B sweep names its runs
    itself.
    """
    multirun = multirun_of(run_dir)
    group = multirun and multirun.name[:MOST_CHARACTERS]
    directory = str(run_dir.relative_to(multirun.parent)) if multirun else run_dir.name
    names = {
        "project": PROJECT,
        "run_group": group,
        "run_name": title[:MOST_CHARACTERS] if title else directory[-MOST_CHARACTERS:],
    }
    others = {
        "run_job_type": command,
        "root_dir": str(run_dir),
        "console": "off",
        "disable_git": True,
        "disable_job_creation": True,
        "init_timeout": INIT_TIMEOUT,
        "finish_timeout": FINISH_TIMEOUT,
    }
    ours = others if own.sweep_id or own.launch else names | others
    return {name: value for name, value in ours.items() if value is not None and not _gives(own, name)}


def _gives(own: wandb.Settings, name: str) -> bool:
    return name in own.model_fields_set and getattr(own, name) is not None


def _mode(typed: Mapping[str, Any], own: wandb.Settings) -> str:
    wanted = typed.get("mode") or mode_of_environment() or (own.mode if _gives(own, "mode") else None)
    if wanted in WITHOUT_SERVER:
        return wanted
    if wanted is not None and own.mode != wanted:
        own = wandb.setup(wandb.Settings(mode=wanted)).settings  # otherwise W&B would not look for a key
    missing = f"no API key for {own.base_url}; `wandb login` saves one"
    try:
        if wandb.login(prompt=False, verify=False):
            return wanted or "online"
    except AuthenticationError as error:
        missing = first_line(error).rstrip(".")
        wanted = wanted or "online"
    if typed.get("force"):
        raise UserError(f"logger.force=true is not allowed: {missing}")
    if wanted is not None:
        _say_offline(missing)
    return "offline"


def _continue(settings: dict[str, Any], own: wandb.Settings, run_dir: Path) -> None:
    """Sets the id of the run that is to be continued, unless the id or another way to continue is given."""
    branches = any(settings.get(name) or _gives(own, name) for name in BRANCHING)
    if own.sweep_id or own.launch or branches:
        return
    if "resume" not in settings and not _gives(own, "resume"):
        settings["resume"] = "allow"
    resume = settings.get("resume") or own.resume
    if "run_id" not in settings and not _gives(own, "run_id") and resume in ("allow", "must") and kept_id(run_dir):
        settings["run_id"] = kept_id(run_dir)


def _init(settings: Mapping[str, Any], url: str) -> Run:
    def init(**changed: Any) -> Run:
        return wandb.init(reinit="finish_previous", settings=wandb.Settings(**{**settings, **changed}))

    if settings["mode"] in WITHOUT_SERVER:
        return init()
    try:
        return init()
    except UsageError as error:
        raise UserError(f"logger=wandb: {url} refuses this run: {first_line(error)}") from None
    except Exception as error:  # of many types, in W&B and in its service process
        reason = first_line(error).replace("<no message>", "no answer").rstrip(".")
        _say_offline(f"{url} cannot be used: {reason}")
        _restart_service()  # the process holds the id of the run that could not begin
        return init(mode="offline")


def _restart_service() -> None:
    """Ends W&B's service process, so that the next run begins with a new one.

    If the process is gone, W&B raises an error, or even ends this program with the process's exit status.
    """
    with contextlib.suppress(Exception, SystemExit):
        wandb.teardown()
    module.unset_globals()


def _say_offline(reason: str) -> None:
    console.print(f"W&B      the run goes on offline: {reason}")
