"""The `logger` keys that every logger has."""

from dataclasses import dataclass

from omegaconf import MISSING

from distdiff.keys import Group


@dataclass
class LoggerKeys:
    _target_: str | None = None
    name: str = MISSING


LOGGER = Group("logger", LoggerKeys, options_have_keys=True)
