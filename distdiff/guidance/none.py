"""No guidance: plain img2img, the baseline; it only measures the energy."""

from distdiff.guidance.base import OneStep
from distdiff.keys import PositiveInt


class Unguided(OneStep):
    """Denoises as the pipeline does; reports the energy at the step where the other methods would begin."""

    def __init__(self, *, start_step: PositiveInt | None = None) -> None:
        super().__init__(start_step=start_step)
