"""The batch being guided: what a guidance method may use of it."""

from collections.abc import Sequence

import torch

from distdiff.energy.images import ImageEnergy
from distdiff.generator.denoiser import Denoiser
from distdiff.generator.noise import draw
from distdiff.guidance.gradient import per_sample
from distdiff.guidance.schedule import StepSchedule


class GuidedBatch:
    """B samples on their way: how to denoise them, their energy, and the random numbers that guidance may draw.

    `targets` (B,) are what the energy compares each sample with. `generators` are guidance's own, one a sample: what it
    draws shifts nothing that the sampler draws. `guided` (B,) is False for a sample whose gradient was not finite: it goes
    on without guidance.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        image_energy: ImageEnergy,
        targets: torch.Tensor,
        schedule: StepSchedule,
        generators: Sequence[torch.Generator],
        network_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.denoiser = denoiser
        self.image_energy = image_energy
        self.targets = targets
        self.schedule = schedule
        self.generators = list(generators)
        self.network_dtype = network_dtype
        self.guided = torch.ones(len(targets), dtype=torch.bool, device=targets.device)

    def predict(
        self, latents: torch.Tensor, index: int, denoiser: Denoiser | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The model's output at z_t (B, C, h, w), and the clean latent ẑ0 that it implies."""
        denoiser = denoiser or self.denoiser
        output = denoiser.predict(latents, index)
        return output, denoiser.clean(latents, output, index)

    def energy(self, clean: torch.Tensor) -> torch.Tensor:
        """E(φ(D(ẑ0)), t), (B,)."""
        return self.image_energy(self.denoiser.decode(clean), self.targets)

    def denoiser_of_repetition(self, travels_left: int) -> Denoiser:
        """What steps to z_{t−1} when as many travels back in time are to follow.

        Only the last repetition of a step counts for the sampler's denoiser; each one before it has a fork that draws fresh
        noise from guidance's own generators, where the scheduler adds noise (LCM).
        """
        return self.denoiser.fork(self.generators) if travels_left else self.denoiser

    def travel_back(self, latents: torch.Tensor, following: torch.Tensor, index: int) -> torch.Tensor:
        """From z_{t−1} (`following`) to a new z_t, with fresh noise; `latents`, the old z_t, where guidance has ended."""
        noise = self.draw(torch.randn, latents.shape[1:], following)
        again = self.denoiser.renoise(following, noise, index)
        return torch.where(per_sample(self.guided, again), again, latents)

    def draw(self, sample, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """(B, *shape) from the samples' own generators."""
        return draw(sample, shape, self.generators).to(like)
