"""What a guidance method may ask of those who prepare its sources, its prototypes and its first step."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from distdiff.guidance.schedule import StepSchedule

Crop = Callable[[Image.Image, int, np.random.Generator], Image.Image]


class Preparation:
    """How it is done here; a method that departs from it hands its own subclass to the assembly.

    - `random_crop(image, size, rng)` makes a source a square of `size` in place of `dataset.fit`, once for all its copies.
    - `one_latent_per_source`: all copies of a source begin from one sample of the autoencoder's posterior.
    """

    random_crop: Crop | None = None
    one_latent_per_source: bool = False

    def prototype_view(self, resolution: int, fit: str, input_size: int) -> tuple[int, str]:
        """(size, fit) of the squares that prototypes are made of.

        The sampler's size, so that φ, whose input has `input_size`, resizes real images as it does those that the energy
        shows it.
        """
        return resolution, fit

    def first_step(self, schedule: StepSchedule, strength: float, counting: str) -> StepSchedule:
        """The schedule with the step at which denoising starts: that of the family's img2img pipeline."""
        return schedule
