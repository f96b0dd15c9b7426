"""Residual multiplicative transformation guidance, the method of the DistDiff paper (Zhu et al., 2024)."""

from typing import Any, Literal

import torch

from distdiff.guidance.base import OneStep
from distdiff.guidance.batch import GuidedBatch
from distdiff.guidance.gradient import per_sample, unit_norm
from distdiff.keys import NonNegative


class Transform(OneStep):
    """Moves the latents z once, at step M, by a channel-wise scale and shift (Zhu et al., 2024).

    The scale and the shift lower the mean energy of the next P denoising steps.

    z' = z ⊙ (1 + ω) + b with ω, b of shape (B, C, 1, 1). ω and b take one gradient step of size ρ down the mean energy
    of P denoising steps from z'. Then z' is computed with the new ω and b, and clamped to the l∞ ball of radius ε
    around z.
    """

    default_period = 2  # as published

    def __init__(
        self,
        *,
        rho: NonNegative,
        epsilon: NonNegative,
        init: Literal["random", "identity"],
        gradient_norm: Literal["none", "unit"] = "none",
        **keys: Any,
    ) -> None:
        super().__init__(**keys)
        self.rho = rho
        self.epsilon = epsilon
        self.init = init
        self.gradient_norm = gradient_norm

    def normalised(self, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        """Divides the gradients of ω and b by their joint norm if `gradient_norm` is `unit`."""
        return unit_norm(gradients) if self.gradient_norm == "unit" else gradients

    @property
    def rolls_out_from_z(self) -> bool:
        """Whether the rollout's first energies are the energies at z, so that these need no network of their own."""
        return self.init == "identity"

    def step(self, latents, index, batch):
        moved, energies = self.transformed(latents, *self.initial(latents, batch), index, batch)
        with torch.no_grad():
            if not self.rolls_out_from_z:
                _, clean = batch.predict(latents, index)
                energies = batch.energy(clean)
            return batch.denoiser.advance(moved, batch.denoiser.predict(moved, index), index), energies

    def initial(self, latents: torch.Tensor, batch: GuidedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """ω and b before the gradient step.

        If `init` is `random`, ω is drawn from U(0, 1) and b from N(0, 1), with each sample's own generator. If `init`
        is `identity`, both are zero.
        """
        shape = (latents.shape[1], 1, 1)
        if self.init == "identity":
            zeros = latents.new_zeros(len(latents), *shape)
            return zeros, zeros.clone()
        return batch.draw(torch.rand, shape, latents), batch.draw(torch.randn, shape, latents)

    @torch.enable_grad()
    def transformed(
        self, latents: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, index: int, batch: GuidedBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """z' after one gradient step on ω (`scale`) and b (`shift`), clamped to the ball around z (`latents`).

        Samples whose `guided` is False keep z. Also returns the energies (B,) of the rollout's first step.
        """
        scale, shift = scale.detach().requires_grad_(), shift.detach().requires_grad_()
        energies = self.rollout_energies(latents * (1 + scale) + shift, index, batch)
        scale_gradient, shift_gradient = self.gradient(sum(energies) / len(energies), [scale, shift], batch)
        with torch.no_grad():
            moved = latents * (1 + scale - self.rho * scale_gradient) + (shift - self.rho * shift_gradient)
            moved = torch.clamp(moved, latents - self.epsilon, latents + self.epsilon)
            return torch.where(per_sample(batch.guided, moved), moved, latents), energies[0].detach()

    def rollout_energies(self, moved: torch.Tensor, index: int, batch: GuidedBatch) -> list[torch.Tensor]:
        """The energies (B,) of each sample at each of the P denoising steps that start at z' (`moved`)."""
        ahead, energies = batch.denoiser.fork(), []
        period = self.steps_in_period(batch.schedule)
        for position in range(index, index + period):
            output, clean = batch.predict(moved, position, ahead)
            energies.append(self.energy_of_clean(clean, batch))
            if position + 1 < index + period:
                moved = ahead.advance(moved, output, position)
        return energies

    def energy_of_clean(self, clean: torch.Tensor, batch: GuidedBatch) -> torch.Tensor:
        """The energies (B,) of predicted clean latents."""
        return batch.energy(clean)
