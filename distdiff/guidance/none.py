"""No guidance: plain img2img, the baseline; it only measures the energy."""

from distdiff.guidance.base import OneStep


class Unguided(OneStep):
    """Denoises as the pipeline does; reports the energy at the step where the other methods would begin."""

    uses = ("start_step",)
