"""Interpolation: an image is drawn from noise between the inversions of two real images of its class."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from distdiff.energy.images import ImageEnergy
from distdiff.generator.conditioning import Prompts
from distdiff.generator.inversion import check_invertible
from distdiff.generator.inversions import Inversions
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.guidance.batch import Aims, GuidedBatch
from distdiff.guidance.none import Unguided
from distdiff.keys import PositiveInt, Share
from distdiff.methods.base import Method
from distdiff.methods.item import WorkItem
from distdiff.methods.sampling import GuidedSampler
from distdiff.methods.synthesis import Synthesizer


class Interpolation(Method):
    """Diff-II (Wang & Chen, 2025), without its learned words: the source and another image of its class are inverted.

    `path`: the noise is drawn from the whole circle through both inversions (`circle`), or from the arc between them
    (`between`). `split`: the share of the noise schedule, from its noisy end, that is denoised under the prompt that is
    drawn for the image; below it, the first prompt of the class holds. `inversion_steps`: in how many steps an image is
    inverted, once for all of its copies.

    In a class of one image, and for a partner with the same pixels, Gaussian noise of the image's own seed takes the place
    of the second inversion: with the inversion itself, all copies would be equal.
    """

    num_sources = 2

    def __init__(self, *, path: Literal["circle", "between"], split: Share, inversion_steps: PositiveInt) -> None:
        self.path = path
        self.split = split
        self.inversion_steps = inversion_steps

    def strength(self, planned: float) -> float:
        return 1.0

    def synthesizer(
        self, seed: int, generator: LatentDiffusion, prompts: Prompts, image_energy: ImageEnergy, inversions: Inversions
    ) -> Synthesizer:
        check_invertible(generator)
        return Interpolator(self, seed, generator, prompts, image_energy, inversions)


class Interpolator(GuidedSampler):
    """Denoises, without guidance, from a point on the circle through two inversions."""

    def __init__(
        self,
        method: Interpolation,
        seed: int,
        generator: LatentDiffusion,
        prompts: Prompts,
        image_energy: ImageEnergy,
        inversions: Inversions,
    ) -> None:
        super().__init__(seed, generator, prompts, Unguided(), image_energy)
        self.method = method
        self.inversions = inversions

    def first_latents(
        self, items: Sequence[WorkItem], batch: GuidedBatch, generators: list[torch.Generator]
    ) -> torch.Tensor:
        first, second = (
            self.inversions.select(torch.tensor(positions)).to(self.generator.device, self.generator.latent_dtype)
            for positions in ([item.position for item in items], [item.partners[0] for item in items])
        )
        same = (first == second).flatten(1).all(1)
        second = torch.where(same.view(-1, 1, 1, 1), self.noise(second, generators), second)
        return on_circle(first, second, self._shares(items).to(first.device), self.method.path == "circle")

    def _shares(self, items: Sequence[WorkItem]) -> torch.Tensor:
        """A number (B,) between 0 and 1 for each image, drawn by its own seed: how far along the path it is."""
        seeds = [item.seed_for(self.seed, "path") for item in items]
        return torch.tensor([np.random.default_rng(seed).random() for seed in seeds], dtype=torch.float64)

    def batch(
        self, items: Sequence[WorkItem], generators: list[torch.Generator], aims: Aims | None = None
    ) -> GuidedBatch:
        found = super().batch(items, generators, aims)
        of_class = self.prompts.of_class
        if of_class is not None and any(len(of_class[item.label]) > 1 for item in items):
            firsts = self.prompts.first_of(torch.tensor([item.label for item in items]))
            later = self.generator.denoiser(firsts, items[0].strength, generators)
            found.denoiser.model = TwoPrompts(found.denoiser.model, later.model)
        return found

    def before_step(self, index: int, batch: GuidedBatch) -> None:
        if isinstance(batch.denoiser.model, TwoPrompts):
            scheduler = batch.denoiser.scheduler
            border = scheduler.config.num_train_timesteps * (1 - self.method.split)
            # The first time of flow matching is the border of a split of 0 itself.
            batch.denoiser.model.is_late = self.method.split == 0 or bool(scheduler.timesteps[index] < border)


class TwoPrompts:
    """A model (z_t, t) → output under one prompt for each sample and, once `is_late` is set, under another."""

    def __init__(self, early: Callable, late: Callable) -> None:
        self.early = early
        self.late = late
        self.is_late = False

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return (self.late if self.is_late else self.early)(latents, timestep)


def on_circle(first: torch.Tensor, second: torch.Tensor, shares: torch.Tensor, whole: bool) -> torch.Tensor:
    """A point (B, C, h, w) for each pair of latents, on the circle that goes through both (Shoemake, 1985).

    z = (sin(θ − ψ) z₁ + sin ψ z₂) / sin θ, where θ is the angle between z₁ (`first`) and z₂ (`second`), and ψ is the
    angle from z₁ to z: a share (`shares`, (B,)) of the whole circle or, unless `whole`, of θ. Latents in the same or in
    opposite directions span no circle; then z is z₁.
    """
    one, two = (latents.flatten(1).double() for latents in (first, second))
    cosine = (one * two).sum(1) / (one.norm(dim=1) * two.norm(dim=1))
    theta = cosine.clamp(-1, 1).acos()
    psi = shares * (2 * math.pi if whole else theta)
    sine = theta.sin()
    flat = ((theta - psi).sin()[:, None] * one + psi.sin()[:, None] * two) / sine[:, None]
    return torch.where((sine > 1e-6)[:, None], flat, one).view_as(first).to(first)
