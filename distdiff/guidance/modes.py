"""Mode guidance: each new image is drawn to one mode of its class in latent space (Chan-Santiago et al., 2025)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans

from distdiff.energy.base import PlannedImage
from distdiff.generator.noise import image_seed
from distdiff.guidance.batch import Aims
from distdiff.guidance.real import RealLatents
from distdiff.guidance.window import FromTheFirstStep
from distdiff.keys import PositiveInt

MOST = 1000  # at most this many images of a class are clustered


class Modes(FromTheFirstStep):
    """ε̂ ← ε̂ − √(1 − ᾱ_t) λ (m − ẑ0), which moves ẑ0 by λ (1 − ᾱ_t) / √ᾱ_t (m − ẑ0); `rho` is λ.

    m is the mode that is planned for the image: one of the centres of k-means with `num_modes` clusters (k-means++) on
    the mean latents of the class's real images. There is no backward pass. ẑ0 never moves beyond m: the factor is at most
    1, which it would exceed only where the latents are almost pure noise.

    With k modes, copy c of the source with rank r has mode r + c modulo k, the largest mode first. The modes depend on the
    seed and the real images alone.
    """

    def __init__(self, real_latents: RealLatents, *, num_modes: PositiveInt, **keys: Any) -> None:
        super().__init__(**keys)
        self.real = real_latents
        self.num_modes = num_modes
        self._modes: dict[tuple[int, int], torch.Tensor] = {}

    def aims(self, images: Sequence[PlannedImage], seed: int) -> Aims:
        """The mode of each image, (B, C, h, w), and its number in the column `guidance_mode`."""
        modes = [self.modes(image, seed) for image in images]
        numbers = [
            (self.real.rank(image, seed) + image.copy) % len(own) for image, own in zip(images, modes, strict=True)
        ]
        chosen = [own[number] for own, number in zip(modes, numbers, strict=True)]
        return Aims(torch.stack(chosen), {"guidance_mode": numbers})

    def modes(self, image: PlannedImage, seed: int) -> torch.Tensor:
        """The modes (k, C, h, w) of the image's class, the largest first."""
        if (image.label, seed) not in self._modes:
            latents = self.real.means(self.real.order(image, seed)[:MOST])
            state = image_seed(seed, image.class_name, "", "modes", "cluster") % 2**32
            count = min(self.num_modes, len(torch.unique(latents.flatten(1), dim=0)))
            found = KMeans(count, random_state=state, n_init="auto").fit(latents.flatten(1).double().numpy())
            largest = np.argsort(-np.bincount(found.labels_, minlength=count), kind="stable")
            centres = torch.from_numpy(found.cluster_centers_[largest]).to(latents)
            self._modes[image.label, seed] = centres.view(count, *latents.shape[1:])
        return self._modes[image.label, seed]

    @torch.no_grad()
    def step(self, latents, index, batch):
        output, clean = batch.predict(latents, index)
        signal, noise = batch.denoiser.signal_level(index, clean), batch.denoiser.noise_level(index, clean)
        if self.rho > 0:
            pull = (self.rho * noise**2 / signal).clamp(max=1)
            moved = clean + pull * (batch.aims.to(clean) - clean)
            output = batch.denoiser.output_for(latents, moved, index)
        return batch.denoiser.advance(latents, output, index), batch.energy_at_first(clean, index)
