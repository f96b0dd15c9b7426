"""The base of guidance methods. A guidance method replaces some of the denoising steps.

To add a method, add a file here with a subclass of `Guidance`, and a YAML file in `conf/guidance` that names the
subclass.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from distdiff.energy.base import PlannedImage
from distdiff.guidance.batch import Aims, GuidedBatch
from distdiff.guidance.gradient import energy_gradient, per_sample, unit_norm
from distdiff.guidance.preparation import Preparation
from distdiff.guidance.schedule import StepSchedule
from distdiff.keys import NonNegative, PositiveInt


@dataclass(frozen=True)
class LatentGradient:
    """The result of one forward and backward pass through the network from z_t.

    `output` is the network's output at z_t, and `clean` is the clean latent ẑ0. `values` (B,) holds each
    sample's objective, and `gradient` (B, C, h, w) is the gradient of the objective with respect to z_t.
    """

    output: torch.Tensor
    clean: torch.Tensor
    values: torch.Tensor
    gradient: torch.Tensor


class Guidance(ABC):
    """Guides the steps in `guided_steps`; all other steps are plain denoising.

    A method's keys in `conf/guidance` are the keyword-only arguments of its constructor. M is `start_step`, counted
    from the end: M steps are left when guidance starts. P is `period`. If `start_step` is null, the schedule chooses M;
    if `period` is null, the method chooses P.

    Arguments of a constructor before the `*` say what the method needs of the real images: `real_features`
    (`RealFeatures`) or `real_latents` (`RealLatents`). A method whose copies of a source depend on each other has a key
    `group_size`, the largest number of copies that are made together; if it is null, each copy is made alone.
    """

    default_period: ClassVar[int | None] = (
        None  # P if `period` is null; P never exceeds the number of steps left, and None stands for that number
    )
    preparation: ClassVar[Preparation] = Preparation()  # how to prepare sources, prototypes and the first step
    # The keys that, if all are 0, leave the method without effect: it then makes the images and the energies of `none`.
    # A subclass does not inherit them, because it may do more.
    idle_at_zero: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, start_step: PositiveInt | None = None, period: PositiveInt | None = None) -> None:
        self.start_step = start_step
        self.period = period

    def schedule(self, num_steps: int, strength: float, counting: str = "floor") -> StepSchedule:
        """The steps that run at `strength`, with M and P resolved; `counting` is the model's rule (`Kind.counting`)."""
        resolved = StepSchedule.of(num_steps, strength, self.start_step, self.period, counting)
        return self.preparation.first_step(resolved, strength, counting)

    def steps_in_period(self, schedule: StepSchedule) -> int:
        """P, which is the configured period or else the method's default, but at most the number of steps left."""
        if schedule.period is not None:
            return schedule.period
        return min(self.default_period or schedule.steps_left, schedule.steps_left)

    def guided_steps(self, schedule: StepSchedule) -> range:
        """The indices of the steps at which `step` replaces plain denoising: P consecutive steps from step M on.

        The first of these steps is also the first at which the energy is measured.
        """
        return range(schedule.first_guided, schedule.first_guided + self.steps_in_period(schedule))

    def aims(self, images: Sequence[PlannedImage], seed: int) -> Aims | None:
        """What the method plans for each image before sampling, such as a real image to move towards.

        An aim depends on `seed`, the image itself and the real images, never on the rest of the batch or on the factor.
        """
        return None

    @abstractmethod
    def step(self, latents: torch.Tensor, index: int, batch: GuidedBatch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Takes z_t (B, C, h, w) through step `index`; returns z_{t−1} and the energy (B,) of ẑ0 predicted at z_t.

        Only the energy of the first guided step is used. At later steps, a method that does not need the energy may
        return None in its place.

        z_t and z_{t−1} have unit variance, as in all of `Denoiser`, so that step sizes are comparable across
        schedulers. Each sample's result depends only on that sample, so the batch size changes nothing.
        """

    def gradient(
        self, energies: torch.Tensor, inputs: Sequence[torch.Tensor], batch: GuidedBatch
    ) -> list[torch.Tensor]:
        """The gradient of the energies (B,) with respect to each of `inputs` (B, …), after `normalised`.

        If a sample's gradient is not finite, `batch.guided` becomes False for the sample. The sample's gradient is then
        zero at this step and at all later steps.
        """
        gradients, finite = energy_gradient(energies, inputs, batch.network_dtype)
        batch.guided &= finite
        gradients = self.normalised(gradients)
        return [torch.where(per_sample(batch.guided, tensor), tensor, 0) for tensor in gradients]

    def normalised(self, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        """Returns the gradients unchanged; subclasses may normalise them."""
        return gradients

    @torch.enable_grad()
    def latent_gradient(
        self,
        latents: torch.Tensor,
        index: int,
        batch: GuidedBatch,
        objective: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> LatentGradient:
        """One forward and backward pass through the network from z_t (B, C, h, w); keeps no autograd graph.

        `objective` maps ẑ0 to the values (B,) that are differentiated. If `objective` is None, the energies are
        differentiated.
        """
        latents = latents.detach().requires_grad_()
        output, clean = batch.predict(latents, index)
        values = (objective or batch.energy)(clean)
        (gradient,) = self.gradient(values, [latents], batch)
        return LatentGradient(output.detach(), clean.detach(), values.detach(), gradient)


class SeveralSteps(Guidance):
    """Guidance that takes a step of size ρ down the energy's gradient at each of P consecutive denoising steps.

    `rho` is ρ. If `every` is n, only every n-th of the P steps is guided. `rho_schedule` says how ρ changes over the
    guided steps. If `gradient_norm` is `unit`, each sample's gradient is divided by its Euclidean norm.
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
        """Divides each sample's gradient by its norm if `gradient_norm` is `unit`."""
        return unit_norm(gradients) if self.gradient_norm == "unit" else gradients

    def guided_steps(self, schedule: StepSchedule) -> range:
        return super().guided_steps(schedule)[:: self.every]

    def share(self, index: int, schedule: StepSchedule) -> float:
        """The factor by which `rho_schedule` multiplies ρ at step `index`; its mean over the n guided steps is 1.

        `increasing` gives 2 (i + 1) / (n + 1) at guided step i, counted from 0. `decreasing` gives the same factors in
        reverse order.

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
    """Guidance that acts only at step M."""

    def guided_steps(self, schedule: StepSchedule) -> range:
        return range(schedule.first_guided, schedule.first_guided + 1)

    def step(self, latents, index, batch):
        """Denoises without guidance, and measures the energy."""
        with torch.no_grad():
            output, clean = batch.predict(latents, index)
            return batch.denoiser.advance(latents, output, index), batch.energy(clean)
