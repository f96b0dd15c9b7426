"""The `trainer` keys, which choose the devices and the number of processes."""

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from distdiff.errors import UserError
from distdiff.keys import Group, key
from distdiff.ranks.arrangement import count_devices


@dataclass
class TrainerKeys:
    accelerator: str = key()
    devices: Any = key()
    num_nodes: int = key(1, at_least=1)
    strategy: str = "auto"
    precision: str = "32-true"


def check(config: DictConfig) -> None:
    """Raises `UserError` if `trainer.devices` is no number of devices, list of device indices, `auto` or -1."""
    trainer = config.trainer
    try:
        fits = str(trainer.devices) != "0" and (str(trainer.devices) in ("auto", "-1") or count_devices(trainer) > 0)
    except (ValueError, TypeError):
        fits = False
    if not fits:
        raise UserError(
            f"trainer.devices={trainer.devices} is not allowed: a number, a list of indices, [0, 2], or auto"
        )


TRAINER = Group("trainer", TrainerKeys, check=check, also_called={"gpus": "trainer.devices"})
