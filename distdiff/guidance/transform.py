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

    def step(self, latents, index, batch):
        with torch.no_grad():
            _, clean = batch.predict(latents, index)
            energies = batch.energy(clean)
        moved = self.transformed(latents, *self.initial(latents, batch), index, batch)
        with torch.no_grad():
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
    ) -> torch.Tensor:
        """z' after one gradient step on ω (`scale`) and b (`shift`), clamped to the ball around z (`latents`).

        Samples whose `guided` is False keep z.
        """
        scale, shift = scale.detach().requires_grad_(), shift.detach().requires_grad_()
        objective = self.rollout_energy(latents * (1 + scale) + shift, index, batch)
        scale_gradient, shift_gradient = self.gradient(objective, [scale, shift], batch)
        with torch.no_grad():
            moved = latents * (1 + scale - self.rho * scale_gradient) + (shift - self.rho * shift_gradient)
            moved = torch.clamp(moved, latents - self.epsilon, latents + self.epsilon)
            return torch.where(per_sample(batch.guided, moved), moved, latents)

    def rollout_energy(self, moved: torch.Tensor, index: int, batch: GuidedBatch) -> torch.Tensor:
        """The mean energy (B,) of each sample over the P denoising steps that start at z' (`moved`)."""
        ahead, total = batch.denoiser.fork(), 0.0
        period = self.steps_in_period(batch.schedule)
        for position in range(index, index + period):
            output, clean = batch.predict(moved, position, ahead)
            total = total + self.energy_of_clean(clean, batch)
            if position + 1 < index + period:
                moved = ahead.advance(moved, output, position)
        return total / period

    def energy_of_clean(self, clean: torch.Tensor, batch: GuidedBatch) -> torch.Tensor:
        """The energies (B,) of predicted clean latents."""
        return batch.energy(clean)
