"""TFG, a training-free guidance that has FreeDoM, MPGD and direct guidance as special cases (Ye et al., 2024)."""

import functools
import math
from typing import Any

import torch

from distdiff.guidance.base import SeveralSteps
from distdiff.guidance.batch import GuidedBatch
from distdiff.keys import NonNegative, PositiveInt


class Tfg(SeveralSteps):
    """Guides z_t by steps of size ρ and the clean latent by steps of size μ, with a smoothed energy and time travel.

    This is algorithm 1 of Ye et al., 2024 (TFG), with the configured energy E in place of −log f:
    - Ẽ(ẑ0) = −log mean_i exp(−E(ẑ0 + γ σ_t δ_i)) with i = 1, …, `num_samples`, δ_i ~ N(0, I) and σ_t = √(1 − ᾱ_t);
    - Δ_t = −ρ ∇_{z_t} Ẽ(ẑ0) ("variance guidance"; here ρ includes the paper's factor 1/√α_t);
    - Δ_0 ← Δ_0 − μ ∇_{ẑ0} Ẽ(ẑ0 + Δ_0), `iterations` times, starting at 0 ("mean guidance");
    - z_{t−1} ← step(z_t) + Δ_t + (signal level of z_{t−1}) Δ_0.

    Each step is taken `recurrence` times, with time travel back to z_t in between.

    With μ = γ = 0, the method equals FreeDoM, and with recurrence 1 also `direct`. With ρ = γ = 0, one iteration and
    recurrence 1, it equals MPGD with μ as MPGD's ρ. At ρ = μ = 0 there is no time travel.
    """

    def __init__(
        self,
        *,
        recurrence: PositiveInt,
        mu: NonNegative,
        iterations: PositiveInt,
        gamma: NonNegative,
        num_samples: PositiveInt,
        **keys: Any,
    ) -> None:
        super().__init__(**keys)
        self.recurrence = recurrence
        self.mu = mu
        self.iterations = iterations
        self.gamma = gamma
        self.num_samples = num_samples

    @torch.no_grad()
    def step(self, latents, index, batch):
        first_energies = None
        share = self.share(index, batch.schedule)
        rho, mu = self.rho * share, self.mu * share
        for travels_left in reversed(range(self.recurrence if rho or mu else 1)):
            spread = self.directions(latents, batch)
            if rho > 0:
                smoothed = functools.partial(self.smoothed_energy, index=index, spread=spread, batch=batch)
                at = self.latent_gradient(latents, index, batch, smoothed)
                output, clean, move = at.output, at.clean, -rho * at.gradient
                energies = batch.energy(clean) if spread else at.values
            else:  # as in MPGD: no backward pass through the network
                output, clean = batch.predict(latents, index)
                energies, move = batch.energy(clean), 0.0
            shift = self.clean_shift(clean, mu, index, spread, batch)
            stepper = batch.denoiser_of_repetition(travels_left)
            following = stepper.advance(latents, output, index)
            following = following + move + batch.denoiser.after_clean_shift(shift, index)
            first_energies = energies if first_energies is None else first_energies
            if travels_left:
                latents = batch.travel_back(latents, following, index)
        return following, first_energies

    def directions(self, latents: torch.Tensor, batch: GuidedBatch) -> list[torch.Tensor]:
        """The random directions δ_i of the smoothing, each (B, C, h, w). The list is empty if γ = 0."""
        if self.gamma == 0:
            return []
        return [batch.draw(torch.randn, latents.shape[1:], latents) for _ in range(self.num_samples)]

    @torch.enable_grad()
    def clean_shift(
        self, clean: torch.Tensor, mu: float, index: int, spread: list[torch.Tensor], batch: GuidedBatch
    ) -> torch.Tensor:
        """Δ_0 (B, C, h, w), the sum of `iterations` steps of size μ from ẑ0 down the smoothed energy's gradient."""
        shift = torch.zeros_like(clean)
        for _ in range(self.iterations if mu > 0 else 0):
            moved = (clean + shift).detach().requires_grad_()
            (gradient,) = self.gradient(self.smoothed_energy(moved, index, spread, batch), [moved], batch)
            shift = shift - mu * gradient
        return shift

    def smoothed_energy(
        self, clean: torch.Tensor, index: int, spread: list[torch.Tensor], batch: GuidedBatch
    ) -> torch.Tensor:
        """Ẽ (B,), the smoothed energy of `clean`."""
        if not spread:
            return batch.energy(clean)
        width = self.gamma * batch.denoiser.noise_level(index, clean)
        energies = torch.stack([batch.energy(clean + width * direction) for direction in spread])
        return math.log(len(spread)) - torch.logsumexp(-energies, dim=0)
