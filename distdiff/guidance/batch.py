"""The batch of samples on which a guidance method works."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from distdiff.energy.images import ImageEnergy
from distdiff.generator.denoiser import Denoiser
from distdiff.generator.noise import draw
from distdiff.guidance.gradient import per_sample
from distdiff.guidance.schedule import StepSchedule


@dataclass(frozen=True)
class Aims:
    """What a guidance method plans for each sample: `values` (B, …), and columns of the metadata with B values each."""

    values: torch.Tensor
    columns: dict[str, list] = field(default_factory=dict)


class GuidedBatch:
    """B samples during sampling, with their denoiser, their energy and the random numbers that guidance draws.

    `targets` (B,) holds each sample's target (`Energy.targets`). `generators` has one generator for each sample. Only
    guidance uses these generators, so that its draws do not change the noise that the sampler draws. `aims` (B, …) holds
    the values that the method planned for the samples (`Guidance.aims`), if it plans any. `guided` (B,) is False for a
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
        aims: torch.Tensor | None = None,
    ) -> None:
        self.denoiser = denoiser
        self.image_energy = image_energy
        self.targets = targets
        self.schedule = schedule
        self.generators = list(generators)
        self.network_dtype = network_dtype
        self.aims = aims
        self.guided = torch.ones(len(targets), dtype=torch.bool, device=targets.device)

    def predict(
        self, latents: torch.Tensor, index: int, denoiser: Denoiser | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The model's output at z_t (B, C, h, w), and the clean latent ẑ0 that it implies."""
        denoiser = denoiser or self.denoiser
        output = denoiser.predict(latents, index)
        return output, denoiser.clean(latents, output, index)

    def energy(self, clean: torch.Tensor) -> torch.Tensor:
        """The energies E(φ(D(ẑ0)), t), (B,), where D is the decoder and t each sample's target, not a timestep."""
        return self.image_energy(self.denoiser.decode(clean), self.targets)

    def raw_features(self, clean: torch.Tensor) -> torch.Tensor:
        """The encoder's features (B, D) of D(ẑ0) before they are normalised; φ(D(ẑ0)) are the normalised ones."""
        images = self.denoiser.decode(clean)
        return self.image_energy.encoder.features(images.to(self.image_energy.energy.dtype))

    @torch.no_grad()
    def energy_at_first(self, clean: torch.Tensor, index: int) -> torch.Tensor | None:
        """The energies (B,) of ẑ0 if step `index` is the first guided one, whose energies are recorded; else None."""
        return self.energy(clean) if index == self.schedule.first_guided else None

    def denoiser_of_repetition(self, travels_left: int) -> Denoiser:
        """The denoiser for one repetition of a step; after it the step is repeated `travels_left` more times.

        Only the last repetition of a step uses the sampler's denoiser. Each earlier one uses a fork of the sampler's
        denoiser. If the scheduler adds noise (LCM), the fork draws fresh noise from `generators`.
        """
        return self.denoiser.fork(self.generators) if travels_left else self.denoiser

    def travel_back(self, latents: torch.Tensor, following: torch.Tensor, index: int) -> torch.Tensor:
        """A new z_t, made from z_{t−1} (`following`) and fresh noise.

        Samples whose `guided` is False keep the old z_t (`latents`).
        """
        noise = self.draw(torch.randn, latents.shape[1:], following)
        again = self.denoiser.renoise(following, noise, index)
        return torch.where(per_sample(self.guided, again), again, latents)

    def draw(self, sample, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Random numbers (B, *shape), with the dtype and device of `like`.

        The function `sample`, such as `torch.randn`, draws them from each sample's own generator.
        """
        return draw(sample, shape, self.generators).to(like)
