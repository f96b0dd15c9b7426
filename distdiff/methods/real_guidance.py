"""Real guidance: image to image, unguided, from the noise level that suits the number of real images of the class."""

from collections.abc import Iterable
from typing import Annotated

from distdiff.energy.images import ImageEnergy
from distdiff.errors import UserError
from distdiff.generator.conditioning import Prompts
from distdiff.generator.kinds import count_steps
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.latents import Latents
from distdiff.guidance.none import Unguided
from distdiff.guidance.schedule import StepSchedule
from distdiff.keys import Limits
from distdiff.methods.base import Method
from distdiff.methods.img2img import Img2ImgSampler
from distdiff.methods.synthesis import Synthesizer

Strength = Annotated[float, Limits(above=0, at_most=1)]


class RealGuidance(Method):
    """The real guidance of He et al. (2023): the fewer real images a class has, the farther its copies are from them.

    Entry i of `strengths` holds for classes of at least 2^i real images; the last one also for larger classes.
    """

    def __init__(self, *, strengths: list[Strength]) -> None:
        """Raises `UserError` for an empty list."""
        if not strengths:
            raise UserError(
                "method.strengths=[] is not allowed: a list of numbers, for 1, 2, 4, ... real images a class"
            )
        self.strengths = strengths

    def strength(self, shots: int) -> float:
        return self.strengths[self._place(shots)]

    def check(self, shots: Iterable[int], num_steps: int, counting: str) -> None:
        """Refuses strengths that leave no steps, if there are classes of their sizes."""
        for place in sorted({self._place(number) for number in shots}):
            count_steps(num_steps, self.strengths[place], counting, f"method.strengths[{place}]")

    def _place(self, shots: int) -> int:
        return min(shots.bit_length(), len(self.strengths)) - 1

    def synthesizer(
        self, seed: int, generator: LatentDiffusion, prompts: Prompts, image_energy: ImageEnergy, latents: Latents
    ) -> Synthesizer:
        return RealGuidanceSampler(seed, generator, prompts, Unguided(), image_energy, latents)


class RealGuidanceSampler(Img2ImgSampler):
    """Unguided img2img whose errors name the key that the strength is from."""

    def schedule(self, strength: float) -> StepSchedule:
        count_steps(self.generator.num_steps, strength, self.generator.counting, "method.strengths")
        return super().schedule(strength)
