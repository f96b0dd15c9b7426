"""The `trainer` keys, which choose the devices and the number of processes."""

from dataclasses import dataclass
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


@dataclass
class TrainerKeys:
    accelerator: str = key()
    devices: Any = key()
    num_nodes: int = key(1, at_least=1)
    strategy: str = key("auto", choices=STRATEGIES)
    precision: str = key("32-true", choices=PRECISIONS)


def check(config: DictConfig) -> None:
    """Raises `UserError` if `trainer.devices` is no number of devices, list of device indices, `auto` or -1."""
    devices = config.trainer.devices
    if not _are_devices(devices):
        raise UserError(f"trainer.devices={devices} is not allowed: a number, a list of indices, [0, 2], or auto")


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


TRAINER = Group("trainer", TrainerKeys, check=check, also_called={"gpus": "trainer.devices"})
