"""The `logger` and `dashboard` keys, and the check of the keys and of the environment of `logger=wandb`."""

import os
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from distdiff.keys import TARGET, Group, key

WANDB = "distdiff.tracking.loggers.wandb"
MODES = ("online", "offline", "disabled")


@dataclass
class LoggerKeys:
    _target_: str | None = None


@dataclass
class DashboardKeys:
    project: str | None = None  # null: that of W&B's settings, or else distdiff
    entity: str | None = None  # null: that of W&B's settings, or else of the API key
    name: str = key()
    job_type: str | None = None  # shows the runs of this job type alone, such as run, expand, train or sweep
    save: bool = key()


def check_logger(config: DictConfig) -> None:
    """Raises `UserError` for a key of `logger=wandb` or an environment variable `WANDB_*` that W&B would not accept.

    W&B is imported, which takes 0.3 s, only if there is something to check.
    """
    logger = config.logger
    if logger[TARGET] != WANDB:
        return
    given = {name: value for name, value in OmegaConf.to_container(logger).items() if name != TARGET}
    given = {name: value for name, value in given.items() if value not in (None, [], {}, False)}
    variables = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    variables.pop("WANDB_SERVICE", None)  # W&B sets it itself, once a run has begun
    usual = {("WANDB_SILENT", "true"), *(("WANDB_MODE", mode) for mode in MODES)}  # commands set the first themselves
    if not given and variables.items() <= usual:
        return
    from distdiff.tracking.wandb_settings import check_keys, check_variables

    check_variables(variables, given.get("mode"))
    check_keys(given)


LOGGER = Group(
    "logger",
    LoggerKeys,
    options_have_keys=True,
    check=check_logger,
    paths=("dir",),
)

DASHBOARD = Group("dashboard", DashboardKeys)
