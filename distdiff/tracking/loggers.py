"""The Lightning loggers of the `logger` group: W&B (online or offline), TensorBoard, CSV, or none."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from distdiff.errors import Stopped, UserError
from distdiff.keys import build
from distdiff.ranks.world import world

# The horizontal axis of a stage's charts is what the stage counts: optimizer steps or images.
STEP, STEPPED = "trainer/global_step", ("train/*", "expand/*", "autoencoder/*", "denoiser/*")


class LastingWandbLogger(WandbLogger):
    """A W&B logger that lets the job go on if W&B's service process is gone. `finish` then says how to upload the run."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        with suppress(ConnectionError):
            super().log_metrics(metrics, step)

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        with suppress(ConnectionError):
            super().log_hyperparams(params)


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
        stage = LastingWandbLogger(experiment=logger.experiment, prefix=prefix)
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
        with suppress(ConnectionError):
            logger.experiment.summary.update(values)
    elif logger is not None:
        logger.log_metrics(values)
        logger.save()


def finish(logger: Logger | None, exit_status: int = 0) -> None:
    """Ends the logger's run, so that the next job of a multirun begins a new run.

    W&B shows a run with an `exit_status` above 0 as failed.
    """
    if isinstance(logger, WandbLogger):
        from distdiff.tracking.wandb_run import end

        end(logger.experiment, exit_status)
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
    project: str | None,
    entity: str | None,
    group: str | None,
    tags: list[str],
    name: str | None,
    notes: str | None = None,
    job_type: str | None = None,
    mode: Literal["online", "offline", "disabled", "shared"] | None = None,
    id: str | None = None,
    resume: Literal["allow", "must", "never", "auto"] | None = None,
    resume_from: str | None = None,
    fork_from: str | None = None,
    save_code: bool | None = None,
    force: bool | None = None,
    dir: str | None = None,
    settings: dict,
) -> WandbLogger:
    """A logger with its own W&B run.

    The keys are the arguments of `wandb.init` with the same names. A key that is null has the value that W&B's
    environment variables and settings files give.
    """
    from distdiff.tracking.wandb_run import begin
    from distdiff.tracking.wandb_settings import settings_of

    given = {"project": project, "entity": entity, "group": group, "tags": tags, "name": name, "notes": notes}
    given |= {"job_type": job_type, "mode": mode, "id": id, "resume": resume, "resume_from": resume_from}
    given |= {"fork_from": fork_from, "save_code": save_code, "force": force, "dir": dir, "settings": settings}
    run = begin(run_dir, command, settings_of(given))
    run.define_metric(STEP)
    for names in STEPPED:
        run.define_metric(names, step_metric=STEP)
    return LastingWandbLogger(experiment=run, save_dir=run_dir)
