"""The batch that is being guided, as guidance methods see it."""

from collections.abc import Sequence

import torch

from distdiff.energy.images import ImageEnergy
from distdiff.generator.denoiser import Denoiser
from distdiff.generator.noise import draw
from distdiff.guidance.gradient import per_sample
from distdiff.guidance.schedule import StepSchedule


class GuidedBatch:
    """B samples during sampling: how to denoise them, their energy, and random numbers for guidance.

    `targets` (B,) are the indices of what the energy compares each sample with. `generators`, one for each sample, are
    used only by guidance, whose draws therefore do not change what the sampler draws. `guided` (B,) is False for a
    sample whose gradient was not finite; such a sample continues without guidance.
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
        """The energies E(φ(D(ẑ0)), t), (B,), where D is the decoder and t the target of each sample."""
        return self.image_energy(self.denoiser.decode(clean), self.targets)

    def denoiser_of_repetition(self, travels_left: int) -> Denoiser:
        """The denoiser for a step to z_{t−1} that is followed by `travels_left` travels back in time.

        Only the last repetition of a step uses the sampler's denoiser. The earlier repetitions use a fork of it. If the
        scheduler adds noise (LCM), the fork draws fresh noise from `generators`.
        """
        return self.denoiser.fork(self.generators) if travels_left else self.denoiser

    def travel_back(self, latents: torch.Tensor, following: torch.Tensor, index: int) -> torch.Tensor:
        """New z_t, from z_{t−1} (`following`) and fresh noise; samples without guidance keep the old z_t (`latents`)."""
        noise = self.draw(torch.randn, latents.shape[1:], following)
        again = self.denoiser.renoise(following, noise, index)
        return torch.where(per_sample(self.guided, again), again, latents)

    def draw(self, sample, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Random numbers (B, *shape), drawn with `sample` from each sample's own generator, in the dtype of `like`."""
        return draw(sample, shape, self.generators).to(like)
