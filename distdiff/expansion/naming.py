"""What an expansion is called, in directories and tables (no heavy imports)."""

from omegaconf import DictConfig

from distdiff.methods.config import AUGMENTATION, IMG2IMG
from distdiff.selection.config import ALL

PLUS = "+"  # before the selection


def row_name(config: DictConfig) -> str:
    """The study's row that the keys choose: of img2img its guidance, of augmentation its policy, else the method; `+selection`.

    `none+energy`, for instance.
    """
    method = config.method
    if method.name == IMG2IMG:
        name = str(config.guidance.name)
    else:
        name = str(method.policy if method.name == AUGMENTATION else method.name)
    return name if config.selection.name == ALL else f"{name}{PLUS}{config.selection.name}"
