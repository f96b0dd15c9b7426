"""The names of expansions in directories and tables. This module imports nothing heavy."""

from omegaconf import DictConfig

from distdiff.methods.config import AUGMENTATION, IMG2IMG
from distdiff.selection.config import ALL

PLUS = "+"  # in a row's name, comes before the selection


def row_name(config: DictConfig) -> str:
    """The name of the study's row that the keys choose, for instance `none+energy`.

    It is the name of the guidance for img2img, of the policy for augmentation, and of the method otherwise, followed by
    `+<selection>` if a selection is chosen.
    """
    method = config.method
    if method.name == IMG2IMG:
        name = str(config.guidance.name)
    else:
        name = str(method.policy if method.name == AUGMENTATION else method.name)
    return name if config.selection.name == ALL else f"{name}{PLUS}{config.selection.name}"
