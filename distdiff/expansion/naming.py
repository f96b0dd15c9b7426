"""The names of expansions in directories and tables, and of runs on dashboards. This module imports nothing heavy."""

from omegaconf import DictConfig

from distdiff.methods.config import AUGMENTATION, IMG2IMG
from distdiff.selection.config import ALL
from distdiff.tracking.columns import dataset_name

PLUS = "+"  # stands before the selection in a row's name


def row_name(config: DictConfig) -> str:
    """The name of the study row that `config` describes, for instance `none+energy`.

    For img2img the name is that of the guidance, for augmentation that of the policy, and otherwise that of the method.
    `+<selection>` follows unless the selection is `all`.
    """
    method = config.method
    if method.name == IMG2IMG:
        name = str(config.guidance.name)
    else:
        name = str(method.policy if method.name == AUGMENTATION else method.name)
    return name if config.selection.name == ALL else f"{name}{PLUS}{config.selection.name}"


def row_of(config: DictConfig) -> str | None:
    """The row that the configuration of a command describes; None for a command that makes no images."""
    return row_name(config) if {"method", "guidance", "selection"} <= config.keys() else None


def run_name(config: DictConfig) -> str:
    """What a run is called on a dashboard, such as `digits-direct-rho0.3-seed0`: dataset, row, ρ and seed.

    Without a row, the classifier or else the command takes its place.
    """
    row, rho = row_of(config), None
    if row is not None and config.method.name == IMG2IMG:
        rho = config.guidance.get("rho")
    middle = row or (config.classifier.name if "classifier" in config else config.command)
    parts = [dataset_name(config), middle, None if rho is None else f"rho{rho:g}", f"seed{config.seed}"]
    return "-".join(part for part in parts if part)
