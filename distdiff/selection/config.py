"""The `selection` keys that every selection has. This module imports nothing heavy."""

from dataclasses import dataclass

from omegaconf import MISSING

from distdiff.keys import Group

ALL = "all"  # this option keeps every image


@dataclass
class SelectionKeys:
    _target_: str = MISSING
    name: str = MISSING


SELECTION = Group("selection", SelectionKeys, options_have_keys=True)
