"""MPGD: guidance of the predicted clean latent, without a backward pass through the denoising network (He et al., 2024)."""

import torch

from distdiff.guidance.base import SeveralSteps


class Mpgd(SeveralSteps):
    """ẑ0 ← ẑ0 − ρ ∇_{ẑ0} E(ẑ0, y); the step to z_{t−1} then uses this ẑ0 and the noise predicted at z_t.

    This is algorithm 1 of He et al., 2024 (Manifold Preserving Guided Diffusion), applied in latent space to the
    configured energy.
    """

    idle_at_zero = ("rho",)

    def step(self, latents, index, batch):
        with torch.no_grad():
            output, clean = batch.predict(latents, index)
        with torch.enable_grad():
            clean = clean.detach().requires_grad_()
            energies = batch.energy(clean)
            (gradient,) = self.gradient(energies, [clean], batch)
        with torch.no_grad():
            shift = -self.rho * self.share(index, batch.schedule) * gradient
            following = batch.denoiser.advance(latents, output, index)
            return following + batch.denoiser.after_clean_shift(shift, index), energies.detach()
