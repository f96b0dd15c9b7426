"""Deviation guidance: new images keep away from the nearest of a memory of images (Chen et al., 2025)."""

from collections.abc import Sequence
from typing import Any

import torch

from distdiff.energy.base import PlannedImage
from distdiff.guidance.batch import Aims, GuidedBatch
from distdiff.guidance.gradient import per_sample
from distdiff.guidance.real import RealLatents
from distdiff.guidance.window import FromTheFirstStep
from distdiff.keys import PositiveInt


class Deviation(FromTheFirstStep):
    """z_{t−1} ← z_{t−1} − ρ ‖z_t‖² ∇_{z_t} cos(z_t, m*), where m* is the image of the memory most similar to z_t.

    The gradient has a closed form, ‖z‖² ∇_z cos(z, m) = ‖z‖ (m / ‖m‖ − cos(z, m) z / ‖z‖), so there is no backward pass,
    and a step has the length ρ ‖z‖ sin(z, m). The memory holds the mean latents of the image's source and of other real
    images of its class, `memory_size` in all.

    With a `group_size`, the copies of a source are made together, and the memory of a copy also has the clean latents ẑ0
    that are predicted at the same step for the copies with smaller numbers.
    """

    def __init__(
        self,
        real_latents: RealLatents,
        *,
        memory_size: PositiveInt,
        group_size: PositiveInt | None = None,
        **keys: Any,
    ) -> None:
        super().__init__(**keys)
        self.real = real_latents
        self.memory_size = memory_size
        self.group_size = group_size

    def aims(self, images: Sequence[PlannedImage], seed: int) -> Aims:
        """The memory of each image, (B, M, C, h, w), with as many images as the largest memory of the batch has.

        The latents of a smaller memory are repeated.
        """
        numbers = [self.memory(image, seed) for image in images]
        most = max(map(len, numbers))
        filled = [(own * -(-most // len(own)))[:most] for own in numbers]
        latents = self.real.means([number for own in filled for number in own])
        return Aims(latents.unflatten(0, (len(images), most)))

    def memory(self, image: PlannedImage, seed: int) -> list[int]:
        """The indices of the real images in the memory: the source, then others in the order of the seed."""
        order = self.real.order(image, seed)
        source = [number for number in order if self.real.keys[number] == image.source]
        others = [number for number in order if self.real.keys[number] != image.source]
        return (source + others)[: self.memory_size]

    @torch.no_grad()
    def step(self, latents, index, batch):
        output, clean = batch.predict(latents, index)
        following = batch.denoiser.advance(latents, output, index)
        move = self.rho * self.ascent(latents, clean, batch)
        return following - move, batch.energy_at_first(clean, index)

    def ascent(self, latents: torch.Tensor, clean: torch.Tensor, batch: GuidedBatch) -> torch.Tensor:
        """‖z‖² ∇_z cos(z, m*) for each sample, (B, C, h, w)."""
        units = _units(latents)
        memory = _units(batch.aims.to(latents).flatten(0, 1)).unflatten(0, batch.aims.shape[:2])
        similar = torch.einsum("bd,bmd->bm", units, memory)
        if self.group_size is not None:
            earlier = _units(clean)
            among = torch.ones(len(clean), len(clean), dtype=torch.bool, device=clean.device).tril(-1)
            among &= earlier.isfinite().all(1)  # a copy that is broken spoils no other
            of_group = (units @ earlier.nan_to_num().T).masked_fill(~among, -torch.inf)
            similar = torch.cat([similar, of_group], dim=1)
            memory = torch.cat([memory, earlier.expand(len(clean), -1, -1)], dim=1)
        cosine, nearest = similar.max(1)
        towards = memory[torch.arange(len(latents), device=latents.device), nearest]
        direction = (towards - cosine[:, None] * units).view_as(latents)
        return per_sample(torch.linalg.vector_norm(latents.flatten(1), dim=1), latents) * direction


def _units(latents: torch.Tensor) -> torch.Tensor:
    """Each latent as a vector of unit length, (B, C h w)."""
    return torch.nn.functional.normalize(latents.flatten(1), dim=1)
