"""The names of expansions in directories and tables. This module imports nothing heavy."""

from omegaconf import DictConfig

from distdiff.methods.config import AUGMENTATION, IMG2IMG
from distdiff.selection.config import ALL

PLUS = "+"  # stands before the selection in a row's name


def row_name(config: DictConfig) -> str:
    """The name of the study row that `config` describes, for instance `none+energy`.

    For img2img the name is that of the guidance, for augmentation that of the policy, and otherwise that of the method.
    `+<selection>` follows unless the selection is `all`.
    """
    method = config.method
    if method.name == IMG2IMG:
        name = str(config.guidance.name)
    else:
        name = str(method.policy if method.name == AUGMENTATION else method.name)
    return name if config.selection.name == ALL else f"{name}{PLUS}{config.selection.name}"
