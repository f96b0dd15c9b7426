"""Overrides as Hydra's grammar reads them."""

from collections.abc import Iterable
from functools import cache, lru_cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override


def parse(overrides: Iterable[str]) -> list[Override]:
    """Overrides as Hydra's parser reads them; they must not be changed. Raises Hydra's `OverrideParseException`."""
    return [_parsed(override) for override in overrides]


@lru_cache(4096)  # the rows of a study and the jobs of a sweep have most overrides in common
def _parsed(override: str) -> Override:
    (parsed,) = _parser().parse_overrides([override])
    return parsed


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()
