"""The `trainer` keys: the devices and processes of every stage, and how Lightning runs downstream training."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.errors import UserError
from distdiff.keys import Group, key

# What Lightning takes; tests/config/test_library_bounds.py asks it.
PRECISIONS = (
    *("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"),
    *("32", "16", "bf16", "64"),
    *("transformer-engine", "transformer-engine-float16"),
)
# The strategies by which ranks that already run train together; other ones start processes, or divide the network.
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
PROFILERS = ("simple", "advanced", "pytorch")
DOWNSTREAM = ("train", "run")  # the commands that train downstream classifiers


@dataclass
class TrainerKeys:
    """The arguments of `lightning.Trainer`. The first five hold for every stage, the others for downstream training.

    Defaults are Lightning's, except that a null of `check_val_every_n_epoch`, `log_every_n_steps` and `sync_batchnorm`
    lets the program choose, and that training data need no trial validation and no summary of the network.
    """

    accelerator: str = key()
    devices: Any = key()
    num_nodes: int = key(1, at_least=1)
    strategy: str = key("auto", choices=STRATEGIES)
    precision: str = key("32-true", choices=PRECISIONS)
    fast_dev_run: Any = False  # true: one batch; or a number of batches
    min_steps: int | None = key(None, at_least=1)  # `callbacks=early_stopping` does not stop before
    max_time: Any = None  # DD:HH:MM:SS
    limit_train_batches: Any = None  # a number of batches, or a share of them, after which a training ends
    limit_val_batches: Any = None
    overfit_batches: Any = 0.0
    val_check_interval: Any = None  # batches, a share of the training, or DD:HH:MM:SS
    check_val_every_n_epoch: int | None = key(None, at_least=1)
    num_sanity_val_steps: int = key(0, at_least=-1)
    log_every_n_steps: int | None = key(None, at_least=0)  # null: twenty times a training
    accumulate_grad_batches: int = key(1, at_least=1, at_most=1000)
    gradient_clip_val: float | None = key(None, at_least=0)
    gradient_clip_algorithm: Any = key(None, choices=("norm", "value", None))
    deterministic: Any = key(None, choices=(True, False, "warn", None))
    benchmark: bool | None = None
    inference_mode: bool = True
    profiler: Any = key(None, choices=(*PROFILERS, None))
    detect_anomaly: bool = False
    sync_batchnorm: bool | None = None  # null: on several GPUs
    enable_model_summary: bool = False
    enable_autolog_hparams: bool = True


OF_EVERY_STAGE = ("accelerator", "devices", "num_nodes", "strategy", "precision")
OF_TRAINING = tuple(item.name for item in fields(TrainerKeys) if item.name not in OF_EVERY_STAGE)
# Those that do not change the weights after a given number of steps.
NEUTRAL = (
    *("limit_val_batches", "val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps"),
    *("log_every_n_steps", "inference_mode", "profiler", "detect_anomaly", "enable_model_summary"),
    "enable_autolog_hparams",
)
DEFAULTS: Mapping[str, Any] = {item.name: item.default for item in fields(TrainerKeys) if item.name in OF_TRAINING}
PART = "a number of batches (1 or more), or a share of them above 0.0 and up to 1.0"
TIME = "a time DD:HH:MM:SS"
EPOCHS = "to Lightning, a training is one long epoch"
# The other arguments of `lightning.Trainer`: the program gives them.
REFUSED = {
    "logger": "here it is called logger, a group: logger=csv",
    "callbacks": "here it is called callbacks, a group: callbacks=[early_stopping,checkpoint]",
    "max_steps": "here it is called train.steps",
    "max_epochs": "here it is called train.epochs",
    "min_epochs": f"{EPOCHS}; trainer.min_steps says what early stopping has to wait for",
    "limit_test_batches": "accuracy is measured on all test images; dataset.per_class limits training images",
    "limit_predict_batches": "every planned image is made; expansion.factor says how many",
    "enable_checkpointing": "callbacks=checkpoint saves checkpoints",
    "enable_progress_bar": "the console shows the progress of all stages; logger=csv records it",
    "use_distributed_sampler": "the program divides batches among ranks itself; train.batch_size is for all ranks together",
    "default_root_dir": "here it is called paths.output_dir",
    "plugins": "trainer.precision and trainer.strategy choose them",
    "reload_dataloaders_every_n_epochs": f"{EPOCHS}, for which images are drawn by seed",
    "barebones": "the program needs what it would switch off; logger=none logs nothing",
    "model_registry": "callbacks=checkpoint saves checkpoints, in callbacks.checkpoint.dirpath",
}


def training_arguments(config: DictConfig) -> dict[str, Any]:
    """The arguments of downstream training in the `trainer` keys, without those that have their default."""
    given = OmegaConf.to_container(config, resolve=True)
    return {name: given[name] for name in OF_TRAINING if name in given and not _is_default(name, given[name])}


def _is_default(name: str, value: Any) -> bool:
    """Whether Lightning does with `value` what it does by default."""
    if value is False and DEFAULTS[name] is None:
        return name != "sync_batchnorm"
    return value == DEFAULTS[name] or (name.startswith("limit_") and isinstance(value, float) and value == 1)


def check(config: DictConfig) -> None:
    """Raises `UserError` for a `trainer` key whose value Lightning would not take."""
    trainer = config.trainer
    if not _are_devices(trainer.devices):
        raise UserError(
            f"trainer.devices={trainer.devices} is not allowed: a number, a list of indices, [0, 2], or auto"
        )
    wrong = {
        "fast_dev_run": (_is_count(trainer.fast_dev_run, 0), "true, false or a number of batches"),
        "max_time": (trainer.max_time is None or is_time(trainer.max_time), TIME),
        "limit_train_batches": (_is_part(trainer.limit_train_batches, 1), PART),
        "limit_val_batches": (_is_part(trainer.limit_val_batches, 0), f"{PART}, or 0"),
        "overfit_batches": (_is_part(trainer.overfit_batches, 0), f"{PART}, or 0"),
        "val_check_interval": (
            _is_part(trainer.val_check_interval, 1) or is_time(trainer.val_check_interval),
            f"{PART}, or {TIME}",
        ),
    }
    for name, (fits, allowed) in wrong.items():
        if not fits:
            raise UserError(f"trainer.{name}={trainer[name]} is not allowed: {allowed}")
    if trainer.val_check_interval is not None and trainer.check_val_every_n_epoch is not None:
        raise UserError(
            f"trainer.val_check_interval={trainer.val_check_interval} is not allowed with "
            f"trainer.check_val_every_n_epoch={trainer.check_val_every_n_epoch}: one of the two"
        )
    if trainer.gradient_clip_algorithm is not None and trainer.gradient_clip_val is None:
        raise UserError(
            f"trainer.gradient_clip_algorithm={trainer.gradient_clip_algorithm} is not allowed without "
            "trainer.gradient_clip_val"
        )


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and value >= least


def _is_part(value: Any, least: int) -> bool:
    if value is None:
        return True
    if isinstance(value, float):
        return 0 < value <= 1 or value == least == 0
    return _is_count(value, least) and not isinstance(value, bool)


def is_time(value: Any) -> bool:
    """Whether Lightning reads `value` as a time, DD:HH:MM:SS."""
    return isinstance(value, str) and bool(re.fullmatch(r"\d+:\d\d?:\d\d?:\d\d?", value.strip()))


def unread(config: DictConfig) -> Mapping[str, str]:
    """The keys of downstream training, in a command that trains no downstream classifier."""
    if config.command in DOWNSTREAM:
        return {}
    reason = f"it is for the downstream training of {' and '.join(f'{name}.py' for name in DOWNSTREAM)}"
    return {f"trainer.{name}": reason for name in OF_TRAINING}


def _are_devices(devices: Any) -> bool:
    if OmegaConf.is_list(devices) or (isinstance(devices, str) and "," in devices):
        parts = devices.split(",") if isinstance(devices, str) else devices
        indices = [_integer(part) for part in parts if str(part).strip()]
        valid = all(index is not None and index >= 0 for index in indices)
        return bool(indices) and valid and len(set(indices)) == len(indices)
    if devices in ("auto", "-1", -1):
        return True
    number = _integer(devices)
    return number is not None and number >= 1


def _integer(value: Any) -> int | None:
    """`value`, a number or its digits, as an integer; None for anything else, such as 1.5 or true."""
    try:
        return int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
    except ValueError:
        return None


TRAINER = Group(
    "trainer", TrainerKeys, check=check, unread=unread, also_called={"gpus": "trainer.devices"}, refused=REFUSED
)
