"""The `selection` keys that every selection has. This module imports nothing heavy."""

from dataclasses import dataclass

from omegaconf import MISSING, DictConfig

from distdiff.encoders.location import transformers_path
from distdiff.keys import TARGET, Group

ALL = "all"  # this option keeps every image
CLIP = "distdiff.selection.clip.ClipConfidence"


@dataclass
class SelectionKeys:
    _target_: str = MISSING
    name: str = MISSING


def check(config: DictConfig) -> None:
    """Raises `UserError` for a CLIP model whose path does not exist or holds no model."""
    if config.selection[TARGET] == CLIP:
        transformers_path("selection.model", config.selection.model)


SELECTION = Group("selection", SelectionKeys, options_have_keys=True, check=check, paths=("model",), hub_ids=("model",))
