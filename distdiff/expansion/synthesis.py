"""Makes images from work items: guided img2img, or augmentation for comparison."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from distdiff.expansion.plan import WorkItem, image_seed
from distdiff.generator.latent_diffusion import LatentDiffusion, Posterior
from distdiff.guidance.base import Guidance
from distdiff.guidance.energy import HierarchicalEnergy


@dataclass(frozen=True)
class Synthesized:
    """A batch of results: images (B, 3, H, W) in [0, 1], and columns of metadata, a list of B values each."""

    images: torch.Tensor
    columns: dict[str, list]


class Synthesizer(nn.Module, ABC):
    """Makes one image an item; all items of a batch start at the same denoising step."""

    def first_step(self, strength: float) -> int:
        """Items with equal values may share a batch."""
        return 0

    @abstractmethod
    def forward(self, items: Sequence[WorkItem]) -> Synthesized: ...


class GuidedImg2Img(Synthesizer):
    """SDEdit (Meng et al., 2022) with some denoising steps replaced by a guidance method."""

    def __init__(
        self,
        generator: LatentDiffusion,
        guidance: Guidance,
        energy: HierarchicalEnergy,
        posterior: Posterior,
        embeddings: torch.Tensor,
        negative: torch.Tensor,
        seed: int,
    ) -> None:
        """`posterior` holds all sources' latents, `embeddings` (Y, tokens, width) one prompt a class."""
        super().__init__()
        self.generator = generator
        self.encoder = energy.encoder
        self.guidance = guidance
        self.energy = energy
        self.posterior = posterior
        self.embeddings = embeddings
        self.negative = negative
        self.seed = seed

    def first_step(self, strength: float) -> int:
        return self.guidance.schedule(self.generator.num_steps, strength).first

    @torch.no_grad()
    def forward(self, items: Sequence[WorkItem]) -> Synthesized:
        device = self.generator.device
        self.energy.prototypes = self.energy.prototypes.to(device)
        labels = torch.tensor([item.label for item in items], device=device)
        generators = [torch.Generator().manual_seed(item.seed) for item in items]
        schedule = self.guidance.schedule(self.generator.num_steps, items[0].strength)
        denoiser = self.generator.denoiser(self.embeddings.to(device)[labels], self.negative.to(device))

        source = self.source_latents(items, generators)
        noise = draw(torch.randn, source.shape[1:], generators).to(source)
        latents = denoiser.add_noise(source, noise, schedule.first)
        guided = self.guidance.guided_steps(schedule)
        energy_before = None
        for index in range(schedule.first, schedule.num_steps):
            if index in guided:
                latents, energies = self.guidance.step(
                    latents, index, denoiser, self.energy, labels, schedule, generators
                )
                energy_before = energies if energy_before is None else energy_before
            else:
                latents = denoiser.advance(latents, denoiser.predict(latents, index), index)
        images = self.generator.decode(latents).clamp(0, 1)
        features = self.energy.encode(images)
        return Synthesized(
            images,
            {
                "energy_before": energy_before.double().tolist(),
                "energy_after": self.energy.of_features(features, labels).double().tolist(),
                "group": self.energy.nearest_group(features, labels).tolist(),
            },
        )

    def source_latents(self, items: Sequence[WorkItem], generators: list[torch.Generator]) -> torch.Tensor:
        """One VAE sample a copy, or a source where the guidance method freezes it, (B, C, h, w)."""
        if self.guidance.freezes_source_latent:
            frozen = [image_seed(self.seed, item.class_name, item.source, "source") for item in items]
            generators = [torch.Generator().manual_seed(seed) for seed in frozen]
        chosen = self.posterior.select(torch.tensor([item.position for item in items]))
        noise = draw(torch.randn, chosen.mean.shape[1:], generators)
        return chosen.sample(noise.to(chosen.mean)).to(self.generator.device, self.generator.dtype)


class Augmentation(Synthesizer):
    """Copies made by an augmentation policy alone: what a user would do without a diffusion model."""

    def __init__(self, policy: nn.Module, originals: torch.Tensor) -> None:
        """`originals` (n, 3, H, W) in [0, 1]."""
        super().__init__()
        self.policy = policy
        self.originals = originals

    @torch.no_grad()
    def forward(self, items: Sequence[WorkItem]) -> Synthesized:
        images = []
        for item in items:  # kornia draws from the global generator, so one image at a time under its own seed
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(item.seed)
                images.append(self.policy(self.originals[item.position : item.position + 1])[0])
        return Synthesized(torch.stack(images).clamp(0, 1), {})


def draw(sample, shape: Sequence[int], generators: list[torch.Generator]) -> torch.Tensor:
    """One tensor of `shape` from each generator, float32 on the CPU, so that device and batch change nothing."""
    return torch.stack([sample(tuple(shape), generator=generator) for generator in generators])
