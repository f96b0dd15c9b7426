"""Transform guidance as the published code computes it (github.com/haoweiz23/DistDiff), kept for comparison."""

import torch

from distdiff.generator.denoiser import Denoiser
from distdiff.guidance.energy import HierarchicalEnergy
from distdiff.guidance.transform import Transform

PUBLISHED_BATCH = 1  # its mean over the batch was taken over one image


class TransformOfficial(Transform):
    """`Transform` with the published code's differences.

    Features are not normalised, though the prototypes they are compared with are; the decoder's output goes to the
    encoder in [−1, 1] without its input normalisation; the energy is averaged over the batch; the first index is
    int((1 − strength) · num_steps); one VAE sample of a source serves all its copies.
    """

    freezes_source_latent = True
    published_start = True
    batch_mean_over = PUBLISHED_BATCH

    def energy_of_clean(
        self, denoiser: Denoiser, clean: torch.Tensor, energy: HierarchicalEnergy, labels: torch.Tensor
    ) -> torch.Tensor:
        decoded = denoiser.decode(clean) * 2 - 1
        return (
            energy.of_features(energy.encoder.published_features(decoded.to(energy.prototypes.classes.dtype)), labels)
            / self.batch_mean_over
        )
