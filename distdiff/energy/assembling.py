"""What an energy needs of the real data, by its signature."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from distdiff.config.signatures import signature_of
from distdiff.energy.base import Energy
from distdiff.errors import UserError
from distdiff.keys import NAME, TARGET, build

PROTOTYPES, EXEMPLARS = "prototypes", "exemplars"
AVAILABLE = (PROTOTYPES, EXEMPLARS)


def needs_of(option: Mapping[str, Any]) -> tuple[str, ...]:
    """What the energy of these `energy` keys is given: names of `AVAILABLE`; raises `UserError` for any other."""
    needs = signature_of(option[TARGET]).context
    for name in needs:
        if name not in AVAILABLE:
            raise UserError(
                f"energy={option.get(NAME)} needs {name!r}, which cannot be had: one of {', '.join(AVAILABLE)}"
            )
    return needs


def build_energy(option: DictConfig, brought: Mapping[str, Any]) -> Energy:
    """The energy of these keys with what it needs, of what is `brought`."""
    return build(option, *(brought[name] for name in needs_of(option)))
