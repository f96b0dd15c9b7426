"""Transform guidance as the published code computes it (github.com/haoweiz23/DistDiff), kept for comparison."""

from typing import Any

import torch

from distdiff.guidance.batch import GuidedBatch
from distdiff.guidance.transform import Transform

PUBLISHED_BATCH = 1  # its mean over the batch was taken over one image


class TransformOfficial(Transform):
    """`Transform` with the published code's differences.

    Features are not normalised, though the prototypes they are compared with are; the decoder's output goes to the
    encoder in [−1, 1] without its input normalisation; the energy is averaged over the batch; the first index is
    int((1 − strength) · num_steps); one random crop of a source, its shorter side scaled to the resolution, and one VAE
    sample of it serve all its copies, while prototypes see the image squashed to a square.
    """

    uses = ("rho", "epsilon", "start_step", "period", "init")
    freezes_source = True
    squashes_prototypes = True
    published_start = True
    batch_mean_over = PUBLISHED_BATCH

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys | {"gradient_norm": "none"})

    def energy_of_clean(self, clean: torch.Tensor, batch: GuidedBatch) -> torch.Tensor:
        return batch.published_energy(clean) / self.batch_mean_over
