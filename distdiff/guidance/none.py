"""No guidance. This is plain img2img, the baseline, which only measures the energy."""

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from distdiff.guidance.base import OneStep
from distdiff.guidance.config import UNGUIDED
from distdiff.keys import NAME, TARGET, PositiveInt


class Unguided(OneStep):
    """Denoises as the pipeline does, and measures the energy at step M, at which the other methods start to guide."""

    def __init__(self, *, start_step: PositiveInt | None = None) -> None:
        super().__init__(start_step=start_step)


def in_place_of(option: DictConfig) -> DictConfig:
    """The `guidance` keys, or those of no guidance if the method does nothing but denoise with these keys (`idle_at_zero`).

    So the images of a sweep's strength 0 are those of its unguided row, which are made once.
    """
    idle = vars(get_object(option[TARGET])).get("idle_at_zero", ())
    if not idle or any(option[key] != 0 for key in idle):
        return option
    return no_guidance(option.get("start_step"))


def no_guidance(start_step: int | None = None) -> DictConfig:
    """The `guidance` keys of no guidance, whose energy is measured at `start_step` (M)."""
    target = f"{Unguided.__module__}.{Unguided.__qualname__}"
    return OmegaConf.create({TARGET: target, NAME: UNGUIDED, "start_step": start_step})
