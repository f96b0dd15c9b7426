"""Builds what a `_target_` names, and lets a user's mistake through as what it is."""

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from distdiff.errors import UserError


def build(config: DictConfig, **more: Any) -> Any:
    """Calls `config._target_` with the node's other keys and `more`, all of them plain values."""
    try:
        return instantiate(OmegaConf.to_container(config, resolve=True), **more)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
