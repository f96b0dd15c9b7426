"""Residual multiplicative transformation guidance: the paper's own method."""

import torch

from distdiff.generator.denoiser import Denoiser
from distdiff.guidance.base import Guidance, clean_energy
from distdiff.guidance.energy import HierarchicalEnergy
from distdiff.guidance.schedule import StepSchedule


class Transform(Guidance):
    """Moves z once, at step M, by a channel-wise scale and shift that lower the energy P steps on (Zhu et al., 2024).

    z' = z ⊙ (1 + ω) + b with ω, b of shape (B, C, 1, 1); one gradient step of size ρ on the mean energy of P rollout
    steps from z'; z' is then clamped to the l∞ ball of radius ε around z.
    """

    uses = ("rho", "epsilon", "start_step", "period", "init")
    default_period = 2  # as published

    def guided_steps(self, schedule: StepSchedule) -> range:
        return range(schedule.first_guided, schedule.first_guided + 1)

    def step(self, latents, index, denoiser, energy, labels, schedule, generators):
        with torch.no_grad():
            _, energies = clean_energy(latents, index, denoiser, energy, labels)
        scale, shift = self.initial(latents, generators)
        period = self.steps_in_period(schedule)
        moved = self.transformed(latents, scale, shift, index, period, denoiser, energy, labels)
        with torch.no_grad():
            return denoiser.advance(moved, denoiser.predict(moved, index), index), energies

    def initial(self, latents: torch.Tensor, generators: list[torch.Generator]) -> tuple[torch.Tensor, torch.Tensor]:
        """ω and b before the gradient step: ω ~ U(0, 1), b ~ N(0, 1) from each sample's own generator, or zeros."""
        shape = (latents.shape[1], 1, 1)
        if self.init == "identity":
            zeros = latents.new_zeros(len(latents), *shape)
            return zeros, zeros.clone()
        scale = torch.stack([torch.rand(shape, generator=g) for g in generators])
        shift = torch.stack([torch.randn(shape, generator=g) for g in generators])
        return scale.to(latents), shift.to(latents)

    @torch.enable_grad()
    def transformed(
        self,
        latents: torch.Tensor,
        scale: torch.Tensor,
        shift: torch.Tensor,
        index: int,
        period: int,
        denoiser: Denoiser,
        energy: HierarchicalEnergy,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """z' after one step down the gradient in (ω, b), inside the ball around z."""
        scale, shift = scale.detach().requires_grad_(), shift.detach().requires_grad_()
        objective = self.rollout_energy(latents * (1 + scale) + shift, index, period, denoiser, energy, labels)
        scale_gradient, shift_gradient = torch.autograd.grad(objective.sum(), (scale, shift))
        with torch.no_grad():
            moved = latents * (1 + scale - self.rho * scale_gradient) + (shift - self.rho * shift_gradient)
            return torch.clamp(moved, latents - self.epsilon, latents + self.epsilon)

    def rollout_energy(
        self,
        moved: torch.Tensor,
        index: int,
        period: int,
        denoiser: Denoiser,
        energy: HierarchicalEnergy,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Mean over P denoising steps from z' of each sample's energy, (B,)."""
        rollout, total = denoiser.fork(), 0.0
        for position in range(index, index + period):
            output = rollout.predict(moved, position)
            total = total + self.energy_of_clean(rollout, rollout.clean(moved, output, position), energy, labels)
            moved = rollout.advance(moved, output, position)
        return total / period

    def energy_of_clean(
        self, denoiser: Denoiser, clean: torch.Tensor, energy: HierarchicalEnergy, labels: torch.Tensor
    ) -> torch.Tensor:
        """E of a predicted clean latent, (B,)."""
        return energy(denoiser.decode(clean), labels)
