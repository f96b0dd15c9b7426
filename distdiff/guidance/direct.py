"""Direct guidance, which follows every guided denoising step with a step down the energy's gradient."""

from distdiff.guidance.base import SeveralSteps


class Direct(SeveralSteps):
    """z_{t−1} ← z_{t−1} − ρ ∇_{z_t} E(z_t, y) at P consecutive steps from step M on."""

    idle_at_zero = ("rho",)

    def step(self, latents, index, batch):
        at = self.latent_gradient(latents, index, batch)
        following = batch.denoiser.advance(latents, at.output, index)
        return following - self.rho * self.share(index, batch.schedule) * at.gradient, at.values
