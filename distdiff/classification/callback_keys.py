"""The `callbacks` keys: callbacks of Lightning for downstream training, with their arguments under Lightning's names."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig

from distdiff.classification.config import LAST
from distdiff.errors import UserError
from distdiff.keys import TARGET, Group, key
from distdiff.keys.limits import check_values
from distdiff.ranks.config import TIME, is_time

VAL_LOSS, VAL_ACCURACY, LOSS = MONITORED = ("val_loss", "val_accuracy", "loss")
EARLY_STOPPING, CHECKPOINT, LR_MONITOR = "early_stopping", "checkpoint", "lr_monitor"
MODES = ("min", "max", None)  # null: the direction in which the metric improves


@dataclass
class EarlyStoppingKeys:
    monitor: str = key(choices=MONITORED)
    mode: Any = key(None, choices=MODES)
    min_delta: float = key(0.0, at_least=0)
    patience: int = key(3, at_least=1)  # checks
    verbose: bool = False
    strict: bool = True
    check_finite: bool = True
    stopping_threshold: float | None = None
    divergence_threshold: float | None = None
    check_on_train_epoch_end: bool | None = None
    log_rank_zero_only: bool = False


@dataclass
class CheckpointKeys:
    monitor: Any = key(choices=(*MONITORED, None))
    mode: Any = key(None, choices=MODES)
    dirpath: str | None = None  # null: <run directory>/checkpoints
    filename: str | None = None
    verbose: bool = False
    save_last: Any = key(None, choices=(True, False, "link", None))
    save_top_k: int = key(1, at_least=-1)
    save_on_exception: bool = False
    save_weights_only: bool = False
    auto_insert_metric_name: bool = True
    every_n_train_steps: int | None = key(None, at_least=0)
    train_time_interval: str | None = None  # DD:HH:MM:SS
    every_n_epochs: int | None = key(None, at_least=0)
    save_on_train_epoch_end: bool | None = None
    enable_version_counter: bool = True


@dataclass
class LearningRateMonitorKeys:
    logging_interval: Any = key(choices=("step", "epoch", None))
    log_momentum: bool = False
    log_weight_decay: bool = False


@dataclass
class CallbacksKeys:
    early_stopping: EarlyStoppingKeys | None = None
    checkpoint: CheckpointKeys | None = None
    lr_monitor: LearningRateMonitorKeys | None = None


KEYS = {EARLY_STOPPING: EarlyStoppingKeys, CHECKPOINT: CheckpointKeys, LR_MONITOR: LearningRateMonitorKeys}
INTERVALS = ("every_n_train_steps", "train_time_interval", "every_n_epochs")


def chosen(config: DictConfig) -> dict[str, DictConfig]:
    """The callbacks of a job, by the names of their options, with their keys."""
    return {name: config.callbacks[name] for name in KEYS if config.callbacks[name] is not None}


def check(config: DictConfig) -> None:
    """Raises `UserError` for a key of a callback, or a combination of keys, that Lightning would not take."""
    for name, node in chosen(config).items():
        check_values(KEYS[name], node, f"callbacks.{name}.")
    for problem in _problems(config, chosen(config)):
        raise UserError(problem)


def _problems(config: DictConfig, callbacks: dict[str, DictConfig]) -> Iterator[str]:
    if LR_MONITOR in callbacks and config.logger[TARGET] is None:
        yield "callbacks=lr_monitor is not allowed with logger=none: it logs the learning rate; logger=csv writes it to a file"
    saving = callbacks.get(CHECKPOINT)
    if saving is not None:
        given = [name for name in INTERVALS if saving[name]]
        if len(given) > 1:
            places = " and ".join(f"callbacks.checkpoint.{name}" for name in given)
            yield f"{places} are not allowed together: Lightning takes one of them"
        if saving.train_time_interval is not None and not is_time(saving.train_time_interval):
            yield f"callbacks.checkpoint.train_time_interval={saving.train_time_interval} is not allowed: {TIME}"
        if saving.monitor is None and saving.save_top_k not in (-1, 0, 1):
            yield (
                f"callbacks.checkpoint.save_top_k={saving.save_top_k} is not allowed without callbacks.checkpoint.monitor: "
                "-1 (all), 0 or 1"
            )
    needing = [f"callbacks={name}" for name, node in callbacks.items() if node.get("monitor")]
    if config.train.selection != LAST:
        needing.append(f"train.selection={config.train.selection}")
    if needing and config.trainer.limit_val_batches == 0:
        yield f"trainer.limit_val_batches=0 is not allowed with {needing[0]}, which needs validation"


CALLBACKS = Group(
    "callbacks",
    CallbacksKeys,
    check=check,
    paths=("checkpoint.dirpath",),
    # A key of a callback that is not chosen is no key.
    refused={
        f"{name}.{item.name}": f"that callback is not chosen; add callbacks={name}, or it to the list callbacks=[…]"
        for name, keys in KEYS.items()
        for item in fields(keys)
    },
    takes_several=True,
)
