"""No guidance: plain img2img as the baseline, which only measures the energy."""

from distdiff.guidance.base import OneStep
from distdiff.keys import PositiveInt


class Unguided(OneStep):
    """Denoises as the pipeline does, and measures the energy at the step at which other methods would start."""

    def __init__(self, *, start_step: PositiveInt | None = None) -> None:
        super().__init__(start_step=start_step)
