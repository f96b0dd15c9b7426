"""The denoising network under the prompts of one batch, with classifier-free guidance."""

import torch

from distdiff.generator.conditioning import Prompts
from distdiff.generator.families.base import Family


class PromptedNetwork:
    """Maps (z_t, t) to the network's output for latents z_t (B, C, h, w), in the latents' precision.

    If `prompts.negative` is not None, the output has classifier-free guidance applied (Ho & Salimans, 2022); both passes
    are one batch.
    """

    def __init__(self, family: Family, dtype: torch.dtype, cfg_scale: float, prompts: Prompts) -> None:
        """`prompts` has one prompt for each sample, on the network's device; `dtype` is the network's precision."""
        self.family = family
        self.dtype = dtype
        self.cfg_scale = cfg_scale
        self.prompts = prompts
        self._both = None
        if prompts.negative is not None:
            self._both = prompts.negative.expand(len(prompts.positive)).followed_by(prompts.positive)

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        if self._both is None:
            return self.family.output(latents.to(self.dtype), timestep, self.prompts.positive).to(latents.dtype)
        twice = torch.cat([latents, latents]).to(self.dtype)
        unconditional, conditional = self.family.output(twice, timestep, self._both).to(latents.dtype).chunk(2)
        return unconditional + self.cfg_scale * (conditional - unconditional)
