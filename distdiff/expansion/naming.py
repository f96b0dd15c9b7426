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


def run_columns(config: DictConfig) -> dict[str, str | float]:
    """What a dashboard shows of a run beside its keys: the row that the configuration describes, and the ρ of its guidance.

    Empty for a command that makes no images.
    """
    if not {"method", "guidance", "selection"} <= config.keys():
        return {}
    rho = config.guidance.get("rho") if config.method.name == IMG2IMG else None
    return {"method": row_name(config)} | ({} if rho is None else {"rho": rho})


def run_name(config: DictConfig) -> str:
    """What a run is called on a dashboard, such as `digits-direct-rho0.3-seed0`: dataset, row, ρ and seed.

    Without a row, the classifier or else the command takes its place.
    """
    columns = run_columns(config)
    middle = columns.get("method") or (config.classifier.name if "classifier" in config else config.command)
    rho = f"rho{columns['rho']:g}" if "rho" in columns else None
    return "-".join(part for part in (dataset_name(config), middle, rho, f"seed{config.seed}") if part)
