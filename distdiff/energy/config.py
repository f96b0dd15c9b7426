"""The `energy` keys that every energy has."""

from dataclasses import dataclass

from omegaconf import MISSING

from distdiff.keys import Group


@dataclass
class EnergyKeys:
    _target_: str = MISSING
    name: str = MISSING


ENERGY = Group("energy", EnergyKeys, options_have_keys=True)
