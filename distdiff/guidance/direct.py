"""Direct guidance: every guided step is followed by a step down the energy's gradient."""

from distdiff.guidance.base import Guidance


class Direct(Guidance):
    """z_{t−1} ← z_{t−1} − ρ ∇_{z_t} E(z_t, y) at P consecutive steps from M on."""

    uses = ("rho", "start_step", "period", "rho_schedule", "gradient_norm")
    default_period = 5  # chosen on validation data: experiments/results/default_guidance.md

    def step(self, latents, index, batch):
        at = self.latent_gradient(latents, index, batch)
        following = batch.denoiser.advance(latents, at.output, index)
        return following - self.rho * self.share(index, batch.schedule) * at.gradient, at.values
