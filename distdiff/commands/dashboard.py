"""Saves a view of a W&B project with the charts of its runs: distdiff dashboard dashboard.project=<project>."""

from pathlib import Path

from omegaconf import DictConfig

from distdiff.console.output import console
from distdiff.tracking.workspace import build_workspace, modules
from distdiff.tracking.workspace_saving import entity_and_project, save_workspace

SPECIFICATION = "workspace.json"


def dashboard(config: DictConfig, run_dir: Path) -> None:
    """Writes the view's specification into `run_dir` and, if `dashboard.save` is true, saves the view on the W&B server."""
    modules()  # fails now if the package is missing
    keys = config.dashboard
    entity, project = entity_and_project(keys.entity, keys.project, keys.save)
    workspace = build_workspace(entity, project, keys.name, keys.job_type)
    file = run_dir / SPECIFICATION
    file.write_text(workspace._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=2), encoding="utf-8")
    console.print(f"view     {file}")
    if keys.save:
        console.print(f"saved    {save_workspace(workspace)}")
