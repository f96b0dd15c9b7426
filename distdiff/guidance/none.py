"""No guidance: plain img2img, the baseline; it only measures the energy."""

import torch

from distdiff.guidance.base import Guidance, clean_energy
from distdiff.guidance.schedule import StepSchedule


class Unguided(Guidance):
    """Denoises as the pipeline does; reports the energy at the step where the other methods would begin."""

    uses = ("start_step",)

    def guided_steps(self, schedule: StepSchedule) -> range:
        return range(schedule.first_guided, schedule.first_guided + 1)

    @torch.no_grad()
    def step(self, latents, index, denoiser, energy, labels, schedule, generators):
        output, energies = clean_energy(latents, index, denoiser, energy, labels)
        return denoiser.advance(latents, output, index), energies
