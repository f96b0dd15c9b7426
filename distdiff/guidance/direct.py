"""Direct guidance: every guided step is followed by a step down the energy's gradient."""

import torch

from distdiff.guidance.base import Guidance, clean_energy
from distdiff.guidance.schedule import StepSchedule


class Direct(Guidance):
    """z_{t−1} ← z_{t−1} − ρ ∇_{z_t} E(z_t, y) at P consecutive steps from M on."""

    uses = ("rho", "start_step", "period")
    default_period = 5  # chosen on validation data: experiments/results/default_guidance.md

    def guided_steps(self, schedule: StepSchedule) -> range:
        return range(schedule.first_guided, schedule.first_guided + self.steps_in_period(schedule))

    @torch.enable_grad()
    def step(self, latents, index, denoiser, energy, labels, schedule, generators):
        latents = latents.detach().requires_grad_()
        output, energies = clean_energy(latents, index, denoiser, energy, labels)
        (gradient,) = torch.autograd.grad(energies.sum(), latents)  # a sum: each sample's gradient is its own
        with torch.no_grad():
            following = denoiser.advance(latents.detach(), output.detach(), index)
            return following - self.rho * gradient, energies.detach()
