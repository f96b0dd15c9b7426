"""What a guidance method is: a replacement for some of the denoising steps.

To add one: a file here with a subclass of `Guidance`, and a YAML file in `conf/guidance` that names it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from distdiff.guidance.batch import GuidedBatch
from distdiff.guidance.gradient import energy_gradient, per_sample, unit_norm
from distdiff.guidance.preparation import Preparation
from distdiff.guidance.schedule import StepSchedule
from distdiff.keys import NonNegative, PositiveInt


@dataclass(frozen=True)
class LatentGradient:
    """At z_t: the network's output, ẑ0, the objective's values (B,) and ∇_{z_t} of them (B, C, h, w)."""

    output: torch.Tensor
    clean: torch.Tensor
    values: torch.Tensor
    gradient: torch.Tensor


class Guidance(ABC):
    """Guides the steps that `guided_steps` names; every other step is the sampler's own.

    Its keys in `conf/guidance` are the keyword-only arguments of its constructor. M and P are `start_step` and `period`;
    null leaves them to the method.
    """

    default_period: ClassVar[int | None] = (
        None  # P where `period` is null and so many steps are left; None: all of them
    )
    preparation: ClassVar[Preparation] = Preparation()  # how sources, prototypes and the first step are prepared for it

    def __init__(self, *, start_step: PositiveInt | None = None, period: PositiveInt | None = None) -> None:
        self.start_step = start_step
        self.period = period

    def schedule(self, num_steps: int, strength: float, counting: str = "floor") -> StepSchedule:
        """The steps that run at `strength`, M and P resolved; `counting` is the model family's rule."""
        resolved = StepSchedule.of(num_steps, strength, self.start_step, self.period, counting)
        return self.preparation.first_step(resolved, strength, counting)

    def steps_in_period(self, schedule: StepSchedule) -> int:
        """P: the typed period, or this method's default limited to the steps left."""
        if schedule.period is not None:
            return schedule.period
        return min(self.default_period or schedule.steps_left, schedule.steps_left)

    def guided_steps(self, schedule: StepSchedule) -> range:
        """The indices at which `step` is called in place of plain denoising: P consecutive ones from M on.

        At the first of them the energy is first seen.
        """
        return range(schedule.first_guided, schedule.first_guided + self.steps_in_period(schedule))

    @abstractmethod
    def step(self, latents: torch.Tensor, index: int, batch: GuidedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """From z_t (B, C, h, w) at `index` to z_{t−1}, and the energy (B,) of z_t's clean prediction.

        Both latents have unit variance, as all that the denoiser takes and returns, so that a move of the same length means
        the same under every scheduler. Each sample's result depends on that sample alone, so the batch size changes nothing.
        """

    def gradient(
        self, energies: torch.Tensor, inputs: Sequence[torch.Tensor], batch: GuidedBatch
    ) -> list[torch.Tensor]:
        """∇E (B,) with respect to each of `inputs` (B, …), as the method wants it (`normalised`).

        Zero for a sample whose gradient is not finite, now or at an earlier step; `batch.guided` marks it.
        """
        gradients, finite = energy_gradient(energies, inputs, batch.network_dtype)
        batch.guided &= finite
        gradients = self.normalised(gradients)
        return [torch.where(per_sample(batch.guided, tensor), tensor, 0) for tensor in gradients]

    def normalised(self, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        """The gradients as they are."""
        return gradients

    @torch.enable_grad()
    def latent_gradient(
        self,
        latents: torch.Tensor,
        index: int,
        batch: GuidedBatch,
        objective: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> LatentGradient:
        """One pass forth and back through the network, from z_t (B, C, h, w); keeps no graph.

        `objective` takes ẑ0 to what is differentiated, (B,); the energy where it is None.
        """
        latents = latents.detach().requires_grad_()
        output, clean = batch.predict(latents, index)
        values = (objective or batch.energy)(clean)
        (gradient,) = self.gradient(values, [latents], batch)
        return LatentGradient(output.detach(), clean.detach(), values.detach(), gradient)


class SeveralSteps(Guidance):
    """Guidance of P consecutive steps, each a move down the gradient of strength ρ.

    Keys: `rho`; `every`, only each so many-th of the P steps is guided; `rho_schedule`, how ρ is spread over the guided
    steps; `gradient_norm`, whether each sample's gradient is divided by its Euclidean norm.
    """

    default_period = 5  # chosen on validation data: experiments/results/default_guidance.md

    def __init__(
        self,
        *,
        rho: NonNegative,
        every: PositiveInt = 1,
        rho_schedule: Literal["constant", "increasing", "decreasing"] = "constant",
        gradient_norm: Literal["none", "unit"] = "none",
        **keys: Any,
    ) -> None:
        super().__init__(**keys)
        self.rho = rho
        self.every = every
        self.rho_schedule = rho_schedule
        self.gradient_norm = gradient_norm

    def normalised(self, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        """Of unit length each, if `gradient_norm` says so."""
        return unit_norm(gradients) if self.gradient_norm == "unit" else gradients

    def guided_steps(self, schedule: StepSchedule) -> range:
        return super().guided_steps(schedule)[:: self.every]

    def share(self, index: int, schedule: StepSchedule) -> float:
        """The factor on the strength at a guided step under `rho_schedule`; its mean over the n guided steps is 1.

        Increasing: 2 (i + 1) / (n + 1) at the i-th guided step, i from 0; decreasing: the same, backwards.

        >>> schedule = StepSchedule.of(num_steps=10, strength=1.0, start_step=4, period=3)
        >>> from distdiff.guidance.direct import Direct
        >>> [Direct(rho=1, rho_schedule="increasing").share(index, schedule) for index in range(6, 9)]
        [0.5, 1.0, 1.5]
        """
        if self.rho_schedule == "constant":
            return 1.0
        steps = self.guided_steps(schedule)
        position = steps.index(index)
        if self.rho_schedule == "decreasing":
            position = len(steps) - 1 - position
        return 2 * (position + 1) / (len(steps) + 1)


class OneStep(Guidance):
    """Guidance that acts at the single step M."""

    def guided_steps(self, schedule: StepSchedule) -> range:
        return range(schedule.first_guided, schedule.first_guided + 1)

    def step(self, latents, index, batch):
        """Plain denoising; only the energy is measured."""
        with torch.no_grad():
            output, clean = batch.predict(latents, index)
            return batch.denoiser.advance(latents, output, index), batch.energy(clean)
