"""Particle guidance: the copies of one source repel each other while they are noisy (Corso et al., 2024)."""

import math
from typing import Any

import torch

from distdiff.guidance.gradient import relative
from distdiff.guidance.window import FromTheFirstStep
from distdiff.keys import NonNegative, PositiveInt

LARGEST_RATIO = (
    20.0  # of noise to signal, at which schedules that begin with pure noise are cut off; SD's largest is 14.6
)


class Particles(FromTheFirstStep):
    """ε̂ ← ε̂ − ρ ‖z‖ g / ‖g‖ with g_i = Σ_j 2 k_ij (z_i − z_j) / h_i, while noise / signal is at least `min_sigma`.

    k_ij = exp(−‖z_i − z_j‖² / h_i) and h_i = median_j ‖z_i − z_j‖² / log n for the n copies of a source that are made
    together, j ≠ i. g_i raises the distance from the other copies; z_j is taken as fixed. ẑ0 moves by noise / signal times
    what ε̂ moves by. There is no backward pass. A copy that is alone in its group is not guided, and one that
    is not finite has no part in this.
    """

    def __init__(self, *, min_sigma: NonNegative, group_size: PositiveInt, **keys: Any) -> None:
        super().__init__(**keys)
        self.min_sigma = min_sigma
        self.group_size = group_size

    @torch.no_grad()
    def step(self, latents, index, batch):
        output, clean = batch.predict(latents, index)
        signal, noise = batch.denoiser.signal_level(index, clean), batch.denoiser.noise_level(index, clean)
        finite = latents.flatten(1).isfinite().all(1)
        batch.guided &= finite
        if self.rho > 0 and finite.sum() > 1 and noise >= self.min_sigma * signal:
            ratio = (noise / signal).clamp(max=LARGEST_RATIO)
            moved = clean.clone()
            moved[finite] += ratio * relative(repulsion(latents[finite]), latents[finite], self.rho)
            output = batch.denoiser.output_for(latents, moved, index)
        return batch.denoiser.advance(latents, output, index), batch.energy_at_first(clean, index)


def repulsion(latents: torch.Tensor) -> torch.Tensor:
    """g (n, C, h, w): for each of n latents, the sum of the kernel's forces away from the others."""
    count = len(latents)
    own = torch.eye(count, dtype=torch.bool, device=latents.device)
    apart = latents.flatten(1)[:, None] - latents.flatten(1)  # (n, n, D)
    squares = apart.square().sum(-1)
    others = squares[~own].view(count, count - 1)
    width = others.sqrt().median(1, keepdim=True).values.square() / math.log(count)
    width = torch.where(width > 0, width, 1)
    weights = torch.exp(-squares / width).masked_fill(own, 0)
    return (2 * weights / width)[..., None].mul(apart).sum(1).view_as(latents)
