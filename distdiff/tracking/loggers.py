"""Lightning loggers as the `logger` group names them: W&B (online or offline, never a prompt), CSV, or none."""

import netrc
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from distdiff.config.instantiation import build
from distdiff.ranks.world import world


def build_logger(config: DictConfig, run_dir: Path) -> Logger | None:
    """The run's logger with the whole configuration as its hyperparameters; None for `logger=none`, and on other ranks."""
    if config.logger._target_ is None or not world().leads:
        return None
    logger = build(config.logger, run_dir=run_dir, command=config.command)
    logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))
    return logger


def stage_logger(logger: Logger | None, prefix: str) -> Logger | bool:
    """The same run, every metric's name behind `prefix/`: what a stage's own trainer logs to."""
    if isinstance(logger, WandbLogger):
        return WandbLogger(experiment=logger.experiment, prefix=prefix)
    if isinstance(logger, CSVLogger):
        return CSVLogger(logger.save_dir, name="", version=f"metrics/{prefix}")
    return False


def log_image(logger: Logger | None, name: str, path: Path) -> None:
    """Shows a picture file on the dashboard, where the logger has one."""
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [str(path)])


def summarize(logger: Logger | None, values: dict[str, Any]) -> None:
    """Writes a run's final figures, which a sweep's dashboard compares."""
    if isinstance(logger, WandbLogger):
        logger.experiment.summary.update(values)
    elif logger is not None:
        logger.log_metrics(values)
        logger.save()


def finish(logger: Logger | None) -> None:
    """Ends the run, so that the next job of a multirun begins its own."""
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()


def csv(run_dir: Path, **_: Any) -> CSVLogger:
    """Metrics as CSV files under the run's directory."""
    return CSVLogger(run_dir, name="", version="metrics")


def wandb(
    run_dir: Path, command: str, project: str, entity: str | None, group: str | None, tags: list[str], **_: Any
) -> WandbLogger:
    """One W&B run a job; a multirun's jobs share a group, named after its directory."""
    import wandb as client

    os.environ.setdefault("WANDB_MODE", "online" if _has_key() else "offline")
    sweep = run_dir.parent.name if run_dir.parent.parent.name == "multirun" else None
    run = client.init(
        project=project,
        entity=entity,
        group=group or sweep,
        tags=tags,
        name=f"{run_dir.parent.name}/{run_dir.name}" if sweep else run_dir.name,
        job_type=command,
        dir=run_dir,
        reinit="finish_previous",
        settings=client.Settings(silent=True, console="off", disable_git=True, disable_job_creation=True),
    )
    return WandbLogger(experiment=run, save_dir=run_dir)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
