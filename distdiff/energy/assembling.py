"""Builds an energy from its configuration keys and from the prototypes or exemplars that the energy needs."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from distdiff.energy.base import Energy
from distdiff.energy.config import needs_of
from distdiff.keys import build


def build_energy(option: DictConfig, brought: Mapping[str, Any]) -> Energy:
    """The energy that `option` configures.

    `brought` holds prototypes or exemplars by name, and must have those that the energy needs.
    """
    return build(option, *(brought[name] for name in needs_of(option)))
