"""No guidance. This is plain img2img, the baseline, which only measures the energy."""

from distdiff.guidance.base import OneStep
from distdiff.keys import PositiveInt


class Unguided(OneStep):
    """Denoises as the pipeline does, and measures the energy at step M, at which the other methods start to guide."""

    def __init__(self, *, start_step: PositiveInt | None = None) -> None:
        super().__init__(start_step=start_step)
