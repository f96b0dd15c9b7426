"""From the `guidance` and `prototype` keys to a method and the energy's weights."""

from omegaconf import DictConfig, OmegaConf

from distdiff.config.instantiation import build
from distdiff.guidance.base import Guidance


def build_guidance(config: DictConfig, prototype: DictConfig) -> tuple[Guidance, dict[str, float]]:
    """The guidance method, and the energy's weights (zero for a level of prototypes that is switched off)."""
    weights = {
        "class_weight": config.class_weight * prototype.class_level,
        "group_weight": config.group_weight * prototype.group_level,
    }
    methods_own = OmegaConf.masked_copy(config, [key for key in config if key not in ("name", *weights)])
    return build(methods_own), weights
