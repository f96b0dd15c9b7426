"""Saves a workspace on the W&B server of this user."""

import os
from typing import Any

import wandb

from distdiff.errors import UserError, first_line
from distdiff.tracking.wandb_run import PROJECT

WITHOUT = "dashboard.save=false writes the specification alone"


def entity_and_project(entity: str | None, project: str | None, save: bool) -> tuple[str, str]:
    """The entity and the project of the workspace: those given, else W&B's settings, else the user's entity and our project.

    Raises `UserError` if the workspace is to be saved and there is no API key or no server. If not, an entity that is not
    known is left empty.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    own = wandb.setup().settings
    project = project or own.project or PROJECT
    entity = entity or own.entity
    if not save:
        return entity or "", project
    try:
        if not wandb.login(prompt=False, verify=False):
            raise UserError(f"no API key for {own.base_url}: `wandb login` saves one, and {WITHOUT}")
        return entity or wandb.Api().default_entity, project
    except UserError:
        raise
    except Exception as error:  # of many types, in W&B and in its service process
        raise UserError(_unreachable(error)) from None


def save_workspace(workspace: Any) -> str:
    """Saves a workspace and returns its address. Raises `UserError` if the server does not take it."""
    try:
        return workspace.save().url
    except Exception as error:
        raise UserError(_unreachable(error)) from None


def _unreachable(error: Exception) -> str:
    reason = first_line(error).rstrip(".")
    return f"{wandb.setup().settings.base_url} does not save the view: {reason}; {WITHOUT}"
