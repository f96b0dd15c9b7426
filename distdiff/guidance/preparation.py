"""How a guidance method wants its sources, its prototypes and its first step to be prepared."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from distdiff.guidance.schedule import StepSchedule

Crop = Callable[[Image.Image, int, np.random.Generator], Image.Image]


class Preparation:
    """The usual preparation; a method that needs another one sets `Guidance.preparation` to its own subclass.

    - `random_crop(image, size, rng)` replaces `dataset.fit` for sources: it makes a square of `size`, once for all copies.
    - `one_latent_per_source`: all copies of a source start from the same sample of the autoencoder's posterior.
    """

    random_crop: Crop | None = None
    one_latent_per_source: bool = False

    def prototype_view(self, resolution: int, fit: str, input_size: int) -> tuple[int, str]:
        """(size, fit) of the squares from which prototypes are made.

        By default the sampler's size, so that φ (with inputs of `input_size`) resizes real images in the same way as the images
        that the energy is computed on.
        """
        return resolution, fit

    def first_step(self, schedule: StepSchedule, strength: float, counting: str) -> StepSchedule:
        """The schedule with the step at which denoising starts, by default that of the kind's img2img pipeline."""
        return schedule
