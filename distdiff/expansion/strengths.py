"""`expansion.strength`: a number, a list or a range."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig


def strengths_of(strength: Any) -> list[float]:
    """The strengths as a list: the number, the members of the list, or both ends of the range.

    >>> strengths_of(0.5), strengths_of([0.4, 0.6]), strengths_of({"low": 0.3, "high": 0.7})
    ([0.5], [0.4, 0.6], [0.3, 0.7])
    """
    if isinstance(strength, (Mapping, DictConfig)):
        return [strength["low"], strength["high"]]
    if isinstance(strength, (Sequence, ListConfig)):
        return list(strength)
    return [strength]
