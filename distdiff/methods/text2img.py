"""Text to image: new images of a class, made from its prompt alone."""

from collections.abc import Sequence

import torch

from distdiff.energy.images import ImageEnergy
from distdiff.generator.conditioning import Prompts
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.guidance.batch import GuidedBatch
from distdiff.guidance.none import Unguided
from distdiff.methods.base import Method
from distdiff.methods.item import WorkItem
from distdiff.methods.sampling import GuidedSampler
from distdiff.methods.synthesis import Synthesizer


class Text2Img(Method):
    """Denoises pure noise under the class's prompt, without guidance and without real images.

    The strength is always 1. As for `guidance=none`, `energy_before` is measured at the step at which guidance would
    start by default.
    """

    num_sources = 0

    def strength(self, planned: float) -> float:
        return 1.0

    def synthesizer(
        self, seed: int, generator: LatentDiffusion, prompts: Prompts, image_energy: ImageEnergy
    ) -> Synthesizer:
        return Text2ImgSampler(seed, generator, prompts, Unguided(), image_energy)


class Text2ImgSampler(GuidedSampler):
    """Starts from pure noise, as the text-to-image pipeline of the generator's family does."""

    def first_latents(
        self, items: Sequence[WorkItem], batch: GuidedBatch, generators: list[torch.Generator]
    ) -> torch.Tensor:
        shape = (len(items), *self.generator.latent_shape)
        like = torch.zeros(shape, dtype=self.generator.latent_dtype, device=self.generator.device)
        return batch.denoiser.pure_noise(self.noise(like, generators), batch.schedule.first)
