"""What a guidance method is: a replacement for some of the denoising steps.

To add one: a file here with a subclass of `Guidance`, and a YAML file in `conf/guidance` that names it.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from distdiff.generator.denoiser import Denoiser
from distdiff.guidance.energy import HierarchicalEnergy
from distdiff.guidance.schedule import StepSchedule


class Guidance(ABC):
    """Guides the steps that `guided_steps` names; every other step is the sampler's own.

    Takes the keys of `conf/guidance`; a method that has no use for a key ignores it, and leaves it out of `uses`.
    """

    uses: ClassVar[tuple[str, ...]] = ()  # the keys that change what this method draws
    freezes_source_latent: ClassVar[bool] = False  # one VAE sample for all copies of a source
    published_start: ClassVar[bool] = False  # first index int((1 - strength) * num_steps), as the published code
    default_period: ClassVar[int | None] = (
        None  # P where `period` is null and so many steps are left; None: all of them
    )

    def __init__(
        self,
        rho: float = 10.0,
        epsilon: float = 0.2,
        start_step: int | None = None,
        period: int | None = None,
        init: str = "random",
    ) -> None:
        self.rho = rho
        self.epsilon = epsilon
        self.start_step = start_step
        self.period = period
        self.init = init

    def schedule(self, num_steps: int, strength: float) -> StepSchedule:
        """The steps that run at `strength`, M and P resolved."""
        resolved = StepSchedule.of(num_steps, strength, self.start_step, self.period)
        if self.published_start:
            resolved = resolved.starting_at(int((1 - strength) * num_steps))
        return resolved

    def steps_in_period(self, schedule: StepSchedule) -> int:
        """P: the typed period, or this method's default limited to the steps left."""
        if schedule.period is not None:
            return schedule.period
        return min(self.default_period or schedule.steps_left, schedule.steps_left)

    @abstractmethod
    def guided_steps(self, schedule: StepSchedule) -> range:
        """The indices at which `step` is called in place of plain denoising; the first is where energy is first seen."""

    @abstractmethod
    def step(
        self,
        latents: torch.Tensor,
        index: int,
        denoiser: Denoiser,
        energy: HierarchicalEnergy,
        labels: torch.Tensor,
        schedule: StepSchedule,
        generators: list[torch.Generator],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From z_t (B, C, h, w) at `index` to z_{t−1}, and the energy (B,) of z_t's clean prediction.

        Each sample's result depends on that sample alone, so the batch size changes nothing.
        """


def clean_energy(
    latents: torch.Tensor, index: int, denoiser: Denoiser, energy: HierarchicalEnergy, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's output at z_t, and E(D(ẑ0(z_t)), y) (B,)."""
    output = denoiser.predict(latents, index)
    return output, energy(denoiser.decode(denoiser.clean(latents, output, index)), labels)
