"""The families that there are, and which of them a pipeline belongs to."""

from diffusers import DiffusionPipeline

from distdiff.generator.families.base import Family
from distdiff.generator.families.latent_consistency import LatentConsistency
from distdiff.generator.families.stable_diffusion import StableDiffusion
from distdiff.generator.families.stable_diffusion_3 import StableDiffusion3
from distdiff.generator.families.stable_diffusion_xl import StableDiffusionXL
from distdiff.generator.kinds import kind_of

FAMILIES: tuple[type[Family], ...] = (StableDiffusion, StableDiffusionXL, LatentConsistency, StableDiffusion3)


def family_of(pipeline: DiffusionPipeline, cfg_scale: float) -> Family:
    """The family of `pipeline`; raises `UserError` for an unsupported kind of pipeline."""
    kind = kind_of(type(pipeline).__name__, type(pipeline).__name__)
    return next(family for family in FAMILIES if family.kind is kind)(pipeline, cfg_scale)
