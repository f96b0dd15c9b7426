"""Prepares the sources, the prototypes and the first step for a guidance method."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from distdiff.guidance.schedule import StepSchedule

Crop = Callable[[Image.Image, int, np.random.Generator], Image.Image]


class Preparation:
    """The usual preparation.

    A method that needs another preparation sets `Guidance.preparation` to an instance of a subclass.

    - `random_crop(image, size, rng)`, if it is not None, is used for sources instead of `dataset.fit`. It crops a
      square of `size` pixels a side, once for all copies of a source.
    - `one_latent_per_source`: whether all copies of a source start from the same sample of the autoencoder's posterior.
    """

    random_crop: Crop | None = None
    one_latent_per_source: bool = False

    def prototype_view(self, resolution: int, fit: str, input_size: int) -> tuple[int, str]:
        """(size, fit) of the squares from which prototypes are made.

        By default the size is `resolution`, the size of the generated images. The encoder φ then resizes real images to
        its `input_size` in the same way as it resizes the images whose energy is computed.
        """
        return resolution, fit

    def first_step(self, schedule: StepSchedule, strength: float, counting: str) -> StepSchedule:
        """`schedule` with the first step that this preparation wants; by default, `schedule` itself."""
        return schedule
