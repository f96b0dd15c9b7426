"""Image to image: a source is noised to `expansion.strength` and denoised again, guided by the `guidance` keys."""

from collections.abc import Sequence

import torch

from distdiff.energy.images import ImageEnergy
from distdiff.generator.conditioning import Prompts
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.latents import Latents
from distdiff.generator.noise import draw, image_seed
from distdiff.guidance.base import Guidance
from distdiff.guidance.batch import GuidedBatch
from distdiff.methods.base import Method
from distdiff.methods.item import WorkItem
from distdiff.methods.sampling import GuidedSampler
from distdiff.methods.synthesis import Synthesizer


class Img2Img(Method):
    """SDEdit (Meng et al., 2022) with some denoising steps guided, as in the DistDiff paper (Zhu et al., 2024)."""

    def synthesizer(
        self,
        seed: int,
        generator: LatentDiffusion,
        prompts: Prompts,
        guidance: Guidance,
        image_energy: ImageEnergy,
        latents: Latents,
    ) -> Synthesizer:
        return Img2ImgSampler(seed, generator, prompts, guidance, image_energy, latents)


class Img2ImgSampler(GuidedSampler):
    """Starts from the sources' latents with noise added."""

    def __init__(
        self,
        seed: int,
        generator: LatentDiffusion,
        prompts: Prompts,
        guidance: Guidance,
        image_energy: ImageEnergy,
        latents: Latents,
    ) -> None:
        """`latents` holds the autoencoder's posterior of each real image, by the image's position."""
        super().__init__(seed, generator, prompts, guidance, image_energy)
        self.latents = latents

    def first_latents(
        self, items: Sequence[WorkItem], batch: GuidedBatch, generators: list[torch.Generator]
    ) -> torch.Tensor:
        source = self.source_latents(items, generators)
        return batch.denoiser.add_noise(source, self.noise(source, generators), batch.schedule.first)

    def source_latents(self, items: Sequence[WorkItem], generators: list[torch.Generator]) -> torch.Tensor:
        """Samples (B, C, h, w) of the autoencoder's posterior of each item's source, one for each item.

        If the guidance method asks for one latent per source, all copies of a source share one sample.
        """
        if self.guidance.preparation.one_latent_per_source:
            seeds = (image_seed(self.seed, item.class_name, item.source, "source") for item in items)
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        chosen = self.latents.select(torch.tensor([item.position for item in items]))
        noise = draw(torch.randn, chosen.mean.shape[1:], generators)
        return chosen.sample(noise.to(chosen.mean)).to(self.generator.device, self.generator.latent_dtype)
