"""The Lightning loggers of the `logger` group: W&B (online or offline), TensorBoard, CSV, or none."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from distdiff.errors import Stopped, UserError
from distdiff.keys import build
from distdiff.ranks.world import world
from distdiff.tracking.recorded import PICTURE, RecordedLogger, recorded

if TYPE_CHECKING:
    from distdiff.tracking.wandb_logger import LastingWandbLogger


def build_logger(
    config: DictConfig, run_dir: Path, name: str | None = None, columns: Mapping[str, Any] = MappingProxyType({})
) -> Logger | None:
    """The run's logger, which has logged the configuration; None for `logger=none` and on ranks that do not lead.

    W&B calls the run `name`, and shows `columns` beside the configuration.
    """
    if config.logger._target_ is None or not world().leads:
        return None
    logger = build(config.logger, run_dir, config.command, name)
    if (dashboard := dashboard_of(logger)) is not None:
        dashboard.log_configuration(config, columns)
    else:
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))
    return logger


@contextmanager
def tracked(
    config: DictConfig, run_dir: Path, name: str | None = None, columns: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[Logger | None]:
    """Yields the run's logger (see `build_logger`), and ends the logger's run after the block.

    The run counts as failed if an error or a signal ended the block.
    """
    logger = build_logger(config, run_dir, name, columns)
    try:
        yield logger
    except BaseException as error:
        finish(logger, error.exit_status if isinstance(error, Stopped) else 1)
        raise
    finish(logger)


def dashboard_of(logger: Logger | None) -> "LastingWandbLogger | None":
    """The logger, if it has a dashboard with tables and charts of its own: W&B."""
    return logger if isinstance(logger, WandbLogger) else None


def stage_logger(logger: Logger | None, place: str) -> Logger | bool:
    """A logger for the trainer of the stage `place`, in the same run as `logger`.

    TensorBoard puts `<place>/` before the name of every metric, CSV writes to the folder `metrics/<place>`, and W&B charts
    metrics in the stage's section (`sections.py`). A `RecordedLogger` notes the stage beside the metrics. If `logger` is of
    another kind or None, the result is False.
    """
    if (dashboard := dashboard_of(logger)) is not None:
        from distdiff.tracking.wandb_logger import StageWandbLogger

        return StageWandbLogger(dashboard, place)
    if isinstance(logger, RecordedLogger):
        return logger.of_stage(place)
    if isinstance(logger, TensorBoardLogger):
        stage = TensorBoardLogger(logger.save_dir, name="", version=logger.version, prefix=place)
        stage.LOGGER_JOIN_CHAR = "/"  # TensorBoard groups metrics by the part before the slash
        return stage
    if isinstance(logger, CSVLogger):
        return CSVLogger(logger.save_dir, name="", version=f"metrics/{place}")
    return False


def log_recorded(folder: Path, logger: Logger | None) -> None:
    """Logs what a `RecordedLogger` wrote to `folder`, as if `logger` had been there."""
    for place, entries in recorded(folder):
        if not (stage := stage_logger(logger, place)):
            return
        for entry in entries:
            if PICTURE in entry:
                log_image(stage, entry["name"], folder / entry[PICTURE], entry["step"], entry["caption"])
            else:
                stage.log_metrics(entry["metrics"], entry["step"])
        stage.save()
        stage.finalize("success")


def log_row(logger: Logger | None, row: str, values: Mapping[str, float], seeds: Mapping[str, int]) -> None:
    """Logs the figures of one run of a study's row. W&B keeps them under hidden keys."""
    if (dashboard := dashboard_of(logger)) is not None:
        dashboard.keep(row, values, seeds)
    elif logger is not None:
        logger.log_metrics(dict(seeds) | {f"{row}/{name}": value for name, value in values.items()})


def log_image(
    logger: Logger | None, name: str, picture: Path | Image.Image, step: int | None = None, caption: str = ""
) -> None:
    """Shows a picture (an image or its file) on the logger's dashboard, if the logger has one."""
    if isinstance(logger, WandbLogger):
        logger.log_pictures(name, {caption: picture}, step)
    elif isinstance(logger, RecordedLogger):
        logger.log_picture(name, picture, step, caption)
    elif isinstance(logger, TensorBoardLogger):
        pixels = np.asarray(picture if isinstance(picture, Image.Image) else Image.open(picture).convert("RGB"))
        behind = f"{logger._prefix}/" if logger._prefix else ""
        logger.experiment.add_image(behind + name, pixels, step, dataformats="HWC")


def log_images(logger: Logger | None, name: str, pictures: Mapping[str, Path]) -> None:
    """Shows pictures by their captions: on W&B side by side in one chart, on TensorBoard each as `<name>/<caption>`."""
    if (dashboard := dashboard_of(logger)) is not None:
        dashboard.log_pictures(name, pictures)
        return
    for caption, picture in pictures.items():
        log_image(logger, f"{name}/{caption}", picture)


def summarize(logger: Logger | None, values: Mapping[str, Any]) -> None:
    """Logs a run's final figures, so that a dashboard can compare the runs of a sweep."""
    if (dashboard := dashboard_of(logger)) is not None:
        dashboard.summarize(values)
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


def csv(run_dir: Path, command: str, name: str | None) -> CSVLogger:
    """A logger that writes metrics as CSV files under the run's directory."""
    return CSVLogger(run_dir, name="", version="metrics")


def tensorboard(run_dir: Path, command: str, name: str | None) -> TensorBoardLogger:
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
    title: str | None,
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
    log_model: bool = False,
    log_dataset: bool = False,
    settings: dict,
) -> WandbLogger:
    """A logger with its own W&B run, which is called `title` unless a name is given.

    The keys are the arguments of `wandb.init` with the same names. A key that is null has the value that W&B's
    environment variables and settings files give. With `log_model` and `log_dataset`, the files of models and of expanded
    datasets are uploaded; otherwise the run only refers to them.
    """
    from distdiff.tracking.sections import define_sections
    from distdiff.tracking.wandb_logger import LastingWandbLogger
    from distdiff.tracking.wandb_run import begin
    from distdiff.tracking.wandb_settings import settings_of

    given = {"project": project, "entity": entity, "group": group, "tags": tags, "name": name, "notes": notes}
    given |= {"job_type": job_type, "mode": mode, "id": id, "resume": resume, "resume_from": resume_from}
    given |= {"fork_from": fork_from, "save_code": save_code, "force": force, "dir": dir, "settings": settings}
    run = begin(run_dir, command, settings_of(given), title)
    define_sections(run)
    uploads = {"model": log_model, "dataset": log_dataset}
    return LastingWandbLogger(run, run_dir, [kind for kind, wanted in uploads.items() if wanted])
