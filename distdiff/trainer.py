"""The Lightning trainer that every stage uses: what the `trainer` group says, none of the console noise."""

import logging
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from distdiff.errors import UserError

for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
    logging.getLogger(name).setLevel(logging.ERROR)


def build_trainer(config: DictConfig, **stage: Any) -> L.Trainer:
    """A trainer from the `trainer` keys and a stage's own arguments (`max_steps`, `callbacks`, …)."""
    arguments = OmegaConf.to_container(config, resolve=True)
    quiet = {"enable_model_summary": False, "enable_checkpointing": False, "logger": False, "barebones": False}
    try:
        return L.Trainer(**(quiet | arguments | stage))
    except (L.fabric.utilities.exceptions.MisconfigurationException, ValueError) as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from None


def trainer_device(config: DictConfig) -> torch.device:
    """The device that this process's share of the work runs on."""
    return build_trainer(config).strategy.root_device
