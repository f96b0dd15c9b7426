"""The Lightning loggers of the `logger` group: W&B (online or offline, without a prompt), TensorBoard, CSV, or none."""

import netrc
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from distdiff.console.output import console
from distdiff.errors import Stopped, UserError
from distdiff.keys import build
from distdiff.ranks.world import world

# The horizontal axis of a stage's charts is what the stage counts: optimizer steps or images.
STEP, STEPPED = "trainer/global_step", ("train/*", "expand/*", "autoencoder/*", "denoiser/*")


def build_logger(config: DictConfig, run_dir: Path) -> Logger | None:
    """The run's logger, which has logged the configuration; None for `logger=none` and on ranks that do not lead."""
    if config.logger._target_ is None or not world().leads:
        return None
    logger = build(config.logger, run_dir, config.command)
    logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))
    return logger


@contextmanager
def tracked(config: DictConfig, run_dir: Path) -> Iterator[Logger | None]:
    """Yields the run's logger, and ends the logger's run after the block.

    The run counts as failed if an error or a signal ended the block.
    """
    logger = build_logger(config, run_dir)
    try:
        yield logger
    except BaseException as error:
        finish(logger, error.exit_status if isinstance(error, Stopped) else 1)
        raise
    finish(logger)


def stage_logger(logger: Logger | None, prefix: str) -> Logger | bool:
    """A logger for a stage's trainer, in the same run as `logger`. It puts `prefix/` before the name of every metric.

    If `logger` is a CSV logger, the result writes to the folder `metrics/<prefix>` instead. If `logger` is of another
    kind or None, the result is False.
    """
    stage: Logger
    if isinstance(logger, WandbLogger):
        stage = WandbLogger(experiment=logger.experiment, prefix=prefix)
    elif isinstance(logger, TensorBoardLogger):
        stage = TensorBoardLogger(logger.save_dir, name="", version=logger.version, prefix=prefix)
    elif isinstance(logger, CSVLogger):
        return CSVLogger(logger.save_dir, name="", version=f"metrics/{prefix}")
    else:
        return False
    stage.LOGGER_JOIN_CHAR = "/"  # dashboards group metrics by the part before the slash
    return stage


def log_image(logger: Logger | None, name: str, picture: Path | Image.Image, step: int | None = None) -> None:
    """Shows a picture (an image or its file) on the logger's dashboard, if the logger has one."""
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [str(picture) if isinstance(picture, Path) else picture], step)
    elif isinstance(logger, TensorBoardLogger):
        pixels = np.asarray(picture if isinstance(picture, Image.Image) else Image.open(picture).convert("RGB"))
        behind = f"{logger._prefix}/" if logger._prefix else ""
        logger.experiment.add_image(behind + name, pixels, step, dataformats="HWC")


def summarize(logger: Logger | None, values: dict[str, Any]) -> None:
    """Logs a run's final figures, so that a dashboard can compare the runs of a sweep."""
    if isinstance(logger, WandbLogger):
        logger.experiment.summary.update(values)
    elif logger is not None:
        logger.log_metrics(values)
        logger.save()


def finish(logger: Logger | None, exit_status: int = 0) -> None:
    """Ends the logger's run, so that the next job of a multirun begins a new run.

    W&B shows a run with an `exit_status` above 0 as failed. If the W&B run is offline, the command that uploads it is
    printed.
    """
    if isinstance(logger, WandbLogger):
        run = logger.experiment
        run.finish(exit_code=exit_status)
        if run.offline:
            folder = shlex.quote(str(Path(run.settings.sync_dir).absolute()))
            console.print(f"W&B      offline, to upload it: wandb sync {folder}")
    elif logger is not None:
        logger.finalize("failed" if exit_status else "success")


def csv(run_dir: Path, command: str) -> CSVLogger:
    """A logger that writes metrics as CSV files under the run's directory."""
    return CSVLogger(run_dir, name="", version="metrics")


def tensorboard(run_dir: Path, command: str) -> TensorBoardLogger:
    """A logger that writes event files under the run's directory.

    Raises `UserError` if the package `tensorboard` is missing.
    """
    try:
        return TensorBoardLogger(run_dir, name="", version="tensorboard")
    except ModuleNotFoundError:
        raise UserError("logger=tensorboard needs a package that is not installed: pip install tensorboard") from None


def wandb(
    run_dir: Path,
    command: str,
    *,
    project: str,
    entity: str | None,
    group: str | None,
    tags: list[str],
) -> WandbLogger:
    """A logger with its own W&B run.

    If `group` is not given, all jobs of a multirun share a W&B group, which is named after the multirun's directory.
    """
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
    run.define_metric(STEP)
    for names in STEPPED:
        run.define_metric(names, step_metric=STEP)
    return WandbLogger(experiment=run, save_dir=run_dir)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
