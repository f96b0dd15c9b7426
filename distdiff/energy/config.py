"""The keys that every energy has, and what an energy needs from the real data, according to its signature.

This module has no heavy imports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING, DictConfig

from distdiff.errors import UserError
from distdiff.keys import NAME, TARGET, Group
from distdiff.keys.signatures import signature_of

PROTOTYPES, EXEMPLARS = "prototypes", "exemplars"
AVAILABLE = (PROTOTYPES, EXEMPLARS)


@dataclass
class EnergyKeys:
    _target_: str = MISSING
    name: str = MISSING


def needs_of(option: Mapping[str, Any]) -> tuple[str, ...]:
    """The data that the energy in `option` needs, as names in `AVAILABLE`.

    Raises `UserError` if the energy needs anything else.
    """
    needs = signature_of(option[TARGET]).context
    for name in needs:
        if name not in AVAILABLE:
            raise UserError(
                f"energy={option.get(NAME)} needs {name!r}, which cannot be had: one of {', '.join(AVAILABLE)}"
            )
    return needs


def check(config: DictConfig) -> None:
    """Raises `UserError` for an energy that needs data other than those in `AVAILABLE`."""
    needs_of(config.energy)


ENERGY = Group("energy", EnergyKeys, options_have_keys=True, check=check)
