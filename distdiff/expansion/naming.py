"""The names of expansions in directories and tables (no heavy imports)."""

from omegaconf import DictConfig

from distdiff.methods.config import AUGMENTATION, IMG2IMG
from distdiff.selection.config import ALL

PLUS = "+"  # comes before the selection's name


def row_name(config: DictConfig) -> str:
    """The name of the study's row that the keys choose, for instance `none+energy`.

    It is the guidance for img2img, the policy for augmentation and the method otherwise, with `+<selection>` if one is chosen.
    """
    method = config.method
    if method.name == IMG2IMG:
        name = str(config.guidance.name)
    else:
        name = str(method.policy if method.name == AUGMENTATION else method.name)
    return name if config.selection.name == ALL else f"{name}{PLUS}{config.selection.name}"
