"""Guidance by steps whose length is a fraction of the length of the latents."""

from abc import abstractmethod

import torch
from torch.nn import functional as F

from distdiff.guidance.batch import GuidedBatch
from distdiff.guidance.gradient import relative
from distdiff.guidance.window import FromTheFirstStep


class RelativeSteps(FromTheFirstStep):
    """z_t ← z_t − ρ ‖z_t‖ g / ‖g‖ with g = ∇_{z_t} F(ẑ0), before the scheduler's step, which keeps the output at the old z_t.

    A subclass defines F, which this class lowers. The length of a step does not depend on the scale of F. A sample whose
    gradient is zero or not finite is not moved. F is a function of the encoder's features of D(ẑ0); the energy that the
    `energy` keys choose is only measured.
    """

    @abstractmethod
    def objective(self, raw: torch.Tensor, batch: GuidedBatch) -> torch.Tensor:
        """F (B,) of the features `raw` (B, D), which are not normalised; differentiable in them."""

    def step(self, latents, index, batch):
        energies = []

        def objective(clean: torch.Tensor) -> torch.Tensor:
            raw = batch.raw_features(clean)
            energies.append(batch.image_energy.of_features(F.normalize(raw.detach(), dim=1), batch.targets))
            return self.objective(raw, batch)

        at = self.latent_gradient(latents, index, batch, objective)
        with torch.no_grad():
            moved = latents - relative(at.gradient, latents, self.rho)
            return batch.denoiser.advance(moved, at.output, index), energies[0].detach()
