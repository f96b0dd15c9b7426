"""Transform guidance as the published code computes it (github.com/haoweiz23/DistDiff), for comparison."""

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from distdiff.guidance.batch import GuidedBatch
from distdiff.guidance.preparation import Preparation
from distdiff.guidance.schedule import StepSchedule
from distdiff.guidance.transform import Transform
from distdiff.keys import NonNegative, PositiveInt


def random_crop(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """Scales the shorter side to `size` (bilinear, antialiased) and crops a square at random."""
    width, height = image.size
    scale = size / min(width, height)
    image = image.resize((max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BILINEAR)
    left, top = (int(rng.integers(0, side - size + 1)) for side in image.size)
    return image.crop((left, top, left + size, top + size))


class PublishedPreparation(Preparation):
    """The published code's preparation.

    All copies of a source share one random crop and one sample of the autoencoder's posterior. Prototypes are made from
    images that are squashed to squares of the encoder's input size.
    """

    random_crop = staticmethod(random_crop)
    one_latent_per_source = True

    def prototype_view(self, resolution: int, fit: str, input_size: int) -> tuple[int, str]:
        return input_size, "squash"

    def first_step(self, schedule: StepSchedule, strength: float, counting: str) -> StepSchedule:
        """`schedule` with denoising that starts at step int((1 − strength) · num_steps).

        If `counting` is "all", all steps run and the schedule stays the same.
        """
        if counting == "all":
            return schedule
        return schedule.starting_at(int((1 - strength) * schedule.num_steps))


class TransformOfficial(Transform):
    """`Transform` as the published code computes it; `PublishedPreparation` describes its preparation.

    Features are not normalised to unit length, although the prototypes are. The encoder gets the decoded image in
    [−1, 1], resized bicubically without antialiasing, and the encoder's input normalisation is not applied. The
    published code averages the energies over the batch, whereas this code does not; with the published batch of one
    image, this makes no difference.
    """

    preparation = PublishedPreparation()

    def __init__(
        self,
        *,
        rho: NonNegative,
        epsilon: NonNegative,
        init: Literal["random", "identity"],
        start_step: PositiveInt | None = None,
        period: PositiveInt | None = None,
    ) -> None:
        super().__init__(rho=rho, epsilon=epsilon, init=init, start_step=start_step, period=period)

    @property
    def rolls_out_from_z(self) -> bool:
        """False: the rollout's energies are not those of the metadata, which are of normalised features."""
        return False

    def energy_of_clean(self, clean: torch.Tensor, batch: GuidedBatch) -> torch.Tensor:
        """The energies (B,) of predicted clean latents, as the published code computes them."""
        encoder, energy = batch.image_energy.encoder, batch.image_energy.energy
        decoded = (batch.denoiser.decode(clean) * 2 - 1).to(energy.dtype)
        resized = F.interpolate(decoded, size=(encoder.input_size, encoder.input_size), mode="bicubic")
        return energy(encoder.extract(resized), batch.targets)
