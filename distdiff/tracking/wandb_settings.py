"""The keys of `logger=wandb` as settings of W&B, and their check by W&B's own rules. This module imports W&B."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import wandb
from pydantic import ValidationError
from wandb.errors import UsageError
from wandb.sdk.lib import wbauth

from distdiff.errors import UserError, first_line

MOST_CHARACTERS = 128  # in a name of a run, group or entity; W&B's own check knows only the project's limit, the same
KEY = "WANDB_API_KEY"

# The arguments of `wandb.init` that are keys, and the names of the same settings in `wandb.Settings`.
SETTINGS = {
    "project": "project",
    "entity": "entity",
    "group": "run_group",
    "tags": "run_tags",
    "name": "run_name",
    "notes": "run_notes",
    "job_type": "run_job_type",
    "mode": "mode",
    "id": "run_id",
    "resume": "resume",
    "resume_from": "resume_from",
    "fork_from": "fork_from",
    "save_code": "save_code",
    "force": "force",
    "dir": "root_dir",
}
OURS = ("log_model", "log_dataset")  # keys that are no settings of W&B
SECRETS = ("api_key",)
WITHOUT_SERVER = ("offline", "dryrun", "disabled")


def check_variables(variables: Mapping[str, str], mode: str | None) -> None:
    """Raises `UserError` for an environment variable with a value that W&B does not accept.

    A malformed API key is a mistake unless the run is to be offline; `mode` is the mode that was typed, if any. The
    message does not show the key.
    """
    for name, value in variables.items():
        if reason := _why_not(lambda n=name, v=value: wandb.Settings().update_from_env_vars({n: v})):
            raise UserError(f"{name if name == KEY else f'{name}={value}'} is not allowed: {reason}")
    mode = mode or mode_of_environment() or _mode_of_files()
    if variables.get(KEY) and mode not in WITHOUT_SERVER and (reason := wbauth.check_api_key(variables[KEY])):
        raise UserError(f"{KEY} is not allowed: {reason}")


def check_keys(keys: Mapping[str, Any]) -> None:
    """Raises `UserError` for a key of `logger=wandb` with a value that W&B does not accept."""
    settings = keys.get("settings", {})
    for name in SECRETS:
        if name in settings:
            raise UserError(f"logger.settings.{name} is not allowed: it would be saved with the run; set {KEY}")
    for name, value in keys.items():
        if name == "settings":
            for setting, own in value.items():
                _check(f"logger.settings.{setting}", own, {setting: own})
        elif name == "tags":
            for index, tag in enumerate(value):
                _check(f"logger.tags[{index}]", tag, {"run_tags": [tag]})
        elif name not in OURS:
            _check_name(name, value)
            _check(f"logger.{name}", value, {SETTINGS[name]: value})
    together = settings_of(keys)
    if reason := _why_not(lambda: wandb.Settings(**together)):
        raise UserError(f"logger: {', '.join(keys)} are not allowed together: {reason}")


def mode_of_environment() -> str | None:
    """The mode that the environment gives.

    WANDB_DISABLED, which W&B itself no longer reads, still means what it did.
    """
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    return "disabled" if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on") else None


def _mode_of_files() -> str | None:
    """The mode in W&B's settings files, where `wandb offline` writes it. W&B's own state is not touched."""
    own = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb"), "settings")
    return wandb.Settings(settings_system=str(own)).read_system_settings().all().get("mode")


def settings_of(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The typed keys as arguments of `wandb.Settings`."""
    given = {SETTINGS[name]: value for name, value in keys.items() if name in SETTINGS and value not in (None, [])}
    return given | dict(keys.get("settings") or {})


def _check(shown: str, value: Any, settings: Mapping[str, Any]) -> None:
    if reason := _why_not(lambda: wandb.Settings(**settings)):
        raise UserError(f"{shown}={value} is not allowed: {reason}")


def _check_name(name: str, value: Any) -> None:
    """Raises `UserError` for a name that only the server would refuse, when all is loaded."""
    if name not in ("project", "entity", "group", "name", "job_type", "id"):
        return
    if not str(value).strip():
        raise UserError(f"logger.{name}='{value}' is not allowed: give a name, or null")
    if len(str(value)) > MOST_CHARACTERS:
        raise UserError(f"logger.{name}={value} is not allowed: at most {MOST_CHARACTERS} characters")
    if name == "entity" and (reason := _why_not(lambda: wandb.Settings(project=value))):
        raise UserError(f"logger.entity={value} is not allowed: {reason.replace('project', 'entity')}")


def _why_not(make: Callable[[], object]) -> str | None:
    """Why W&B does not accept the values that `make` gives it; None if it accepts them."""
    try:
        make()
    except UsageError as error:
        return first_line(error)
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ").splitlines()[0]
    return None
