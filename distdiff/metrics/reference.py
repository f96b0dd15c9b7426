"""What the measures are of real images, so that those of expanded ones can be judged."""

from dataclasses import dataclass

import torch

from distdiff.classification.networks import ImageClassifier
from distdiff.data.images import LabelledImages
from distdiff.metrics.fidelity import coverage, frechet_distance, judge_features

SEED = 0


@dataclass(frozen=True)
class Reference:
    """Real against real images: a random half of `num_half` against the other, and the judge on `num_held_out` held-out ones.

    None where there are too few. Frechet distance falls, and coverage rises, with the number of images: more expanded images
    than `num_half` have it easier than these halves. Both halves are of the pool that the judge was trained on.
    """

    frechet_distance: float | None
    label_consistency: float | None
    coverage: float | None
    num_half: int
    num_held_out: int


def reference(
    real: torch.Tensor, held_out: LabelledImages, judge: ImageClassifier, size: int, fit: str, num_neighbours: int
) -> Reference:
    """Of the `judge`'s features of real images (n, D), and of others that it was not trained on."""
    shuffled = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(SEED))]
    half = len(real) // 2
    first, second = shuffled[:half], shuffled[half : 2 * half]
    enough, consistency = half > 1, None
    if len(held_out):
        _, predicted = judge_features(judge, held_out, size, fit)
        consistency = float((predicted.numpy() == held_out.labels).mean())
    return Reference(
        frechet_distance=frechet_distance(first, second) if enough else None,
        label_consistency=consistency,
        coverage=coverage(first.numpy(), second.numpy(), num_neighbours) if enough else None,
        num_half=half,
        num_held_out=len(held_out),
    )
