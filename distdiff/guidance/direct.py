"""Direct guidance: every guided step is followed by a step down the energy's gradient."""

import torch

from distdiff.guidance.base import Guidance


class Direct(Guidance):
    """z_{t−1} ← z_{t−1} − ρ ∇_{z_t} E(z_t, y) at P consecutive steps from M on."""

    uses = ("rho", "start_step", "period", "rho_schedule", "gradient_norm")
    default_period = 5  # chosen on validation data: experiments/results/default_guidance.md

    @torch.enable_grad()
    def step(self, latents, index, batch):
        latents = latents.detach().requires_grad_()
        output, clean = batch.predict(latents, index)
        energies = batch.energy(clean)
        (gradient,) = self.gradient(energies, [latents], batch)
        with torch.no_grad():
            following = batch.denoiser.advance(latents.detach(), output.detach(), index)
            return following - self.rho * self.share(index, batch.schedule) * gradient, energies.detach()
