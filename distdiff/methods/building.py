"""Builds the method that a configuration chooses."""

from omegaconf import DictConfig

from distdiff.keys import build
from distdiff.methods.base import Method
from distdiff.methods.config import needs_of


def build_method(config: DictConfig) -> Method:
    """The method that the `method` keys choose.

    If the method is guided and `guidance.group_size` is set, the method makes the copies of a source together, in groups
    of this size.
    """
    method: Method = build(config.method)
    together = config.guidance.get("group_size") if "guidance" in needs_of(config.method) else None
    if together is not None:
        method.group_size = together
    return method
