"""Guided imagination: a finished latent is moved to an image that informs a classifier more (Zhang et al., 2023)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch.nn import functional as F

from distdiff.energy.base import PlannedImage
from distdiff.guidance.base import Guidance
from distdiff.guidance.batch import Aims, GuidedBatch
from distdiff.guidance.classifying import entropy, log_probabilities
from distdiff.guidance.gradient import per_sample
from distdiff.guidance.real import RealFeatures
from distdiff.guidance.schedule import StepSchedule
from distdiff.keys import NonNegative, PositiveInt


class Gif(Guidance):
    """After the last step, z ← clamp_ε(z ⊙ (1 + ω) + b), where ω and b take one sign step of size ρ up the score.

    The score of the n copies of a source that are made together is the sum of

        H(p_i) + p_i[y] + KL(softmax(f̄) ‖ softmax(f_i)),

    where p_i is the classifier's prediction for image i, y the class, f_i = φ(D(z_i)) and f̄ their mean. ω and b have one
    value for each channel; `init` is as for `transform`. A copy that is alone in its group has no third term, and one that
    is not finite has no part in f̄.
    """

    def __init__(
        self,
        real_features: RealFeatures,
        *,
        rho: NonNegative,
        epsilon: NonNegative,
        init: Literal["random", "identity"],
        group_size: PositiveInt,
    ) -> None:
        super().__init__()
        self.real = real_features
        self.rho = rho
        self.epsilon = epsilon
        self.init = init
        self.group_size = group_size

    def schedule(self, num_steps: int, strength: float, counting: str = "floor") -> StepSchedule:
        return StepSchedule.of(num_steps, strength, start_step=1, period=1, counting=counting)

    def aims(self, images: Sequence[PlannedImage], seed: int) -> Aims:
        """The class of each image."""
        return Aims(torch.tensor([image.label for image in images]))

    def step(self, latents, index, batch):
        with torch.no_grad():
            output, clean = batch.predict(latents, index)
            finished = batch.denoiser.advance(latents, output, index)
            energies = batch.energy(clean)
        return self.imagined(finished, batch), energies

    @torch.enable_grad()
    def imagined(self, latents: torch.Tensor, batch: GuidedBatch) -> torch.Tensor:
        """The moved clean latents, clamped to the l∞ ball of radius ε around `latents`."""
        shape = (latents.shape[1], 1, 1)
        if self.init == "identity":
            scale, shift = latents.new_zeros(2, len(latents), *shape).unbind()
        else:
            scale, shift = batch.draw(torch.rand, shape, latents), batch.draw(torch.randn, shape, latents)
        scale, shift = scale.detach().clone().requires_grad_(), shift.detach().clone().requires_grad_()
        scores = self.scores(batch.raw_features(latents * (1 + scale) + shift), batch)
        slopes = self.gradient(scores, [scale, shift], batch)
        with torch.no_grad():
            scale, shift = (part + self.rho * slope.sign() for part, slope in zip((scale, shift), slopes, strict=True))
            moved = (latents * (1 + scale) + shift).clamp(latents - self.epsilon, latents + self.epsilon)
            return torch.where(per_sample(batch.guided, moved), moved, latents)

    def scores(self, raw: torch.Tensor, batch: GuidedBatch) -> torch.Tensor:
        """The score of each image, (B,), of features (B, D) that are not normalised."""
        log_p = log_probabilities(raw, batch.image_energy.encoder, self.real)
        kept = log_p.exp().gather(1, batch.aims[:, None])[:, 0]
        features = F.normalize(raw, dim=1)
        finite = features.isfinite().all(1)
        whole = torch.where(finite[:, None], features, 0)  # a copy that is broken spoils no other
        mean = F.log_softmax(whole.sum(0, keepdim=True) / finite.sum().clamp(min=1), dim=1)
        divergence = (mean.exp() * (mean - F.log_softmax(whole, dim=1))).sum(1)
        return torch.where(finite, entropy(log_p) + kept + divergence, torch.nan)
