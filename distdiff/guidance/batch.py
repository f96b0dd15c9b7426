"""The batch being guided: what a guidance method may use of it."""

from collections.abc import Sequence

import torch

from distdiff.energy.hierarchical import ImageEnergy
from distdiff.generator.denoiser import Denoiser
from distdiff.generator.noise import draw
from distdiff.guidance.gradient import per_sample
from distdiff.guidance.schedule import StepSchedule


class GuidedBatch:
    """B samples on their way: how to denoise them, their energy, and the random numbers that guidance may draw.

    `generators` are guidance's own, one a sample: what it draws shifts nothing that the sampler draws. `guided` (B,) is
    False for a sample whose gradient was not finite: it goes on without guidance.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        image_energy: ImageEnergy,
        labels: torch.Tensor,
        schedule: StepSchedule,
        generators: Sequence[torch.Generator],
        network_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.denoiser = denoiser
        self.image_energy = image_energy
        self.labels = labels
        self.schedule = schedule
        self.generators = list(generators)
        self.network_dtype = network_dtype
        self.guided = torch.ones(len(labels), dtype=torch.bool, device=labels.device)

    def predict(
        self, latents: torch.Tensor, index: int, denoiser: Denoiser | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The model's output at z_t (B, C, h, w), and the clean latent ẑ0 that it implies."""
        denoiser = denoiser or self.denoiser
        output = denoiser.predict(latents, index)
        return output, denoiser.clean(latents, output, index)

    def energy(self, clean: torch.Tensor) -> torch.Tensor:
        """E(φ(D(ẑ0)), y), (B,)."""
        return self.image_energy(self.denoiser.decode(clean), self.labels)

    def published_energy(self, clean: torch.Tensor) -> torch.Tensor:
        """E as the published transform code computes it, (B,)."""
        decoded = self.denoiser.decode(clean) * 2 - 1
        return self.image_energy.energy(self.image_energy.published_features(decoded), self.labels)

    def travel_back(self, latents: torch.Tensor, following: torch.Tensor, index: int) -> torch.Tensor:
        """From z_{t−1} (`following`) to a new z_t, with fresh noise; `latents`, the old z_t, where guidance has ended."""
        noise = self.draw(torch.randn, latents.shape[1:], following)
        again = self.denoiser.renoise(following, noise, index)
        return torch.where(per_sample(self.guided, again), again, latents)

    def draw(self, sample, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """(B, *shape) from the samples' own generators."""
        return draw(sample, shape, self.generators).to(like)
