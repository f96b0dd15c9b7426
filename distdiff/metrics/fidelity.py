"""How close expanded images are to the real ones, in the features of a judge that saw real images only."""

import itertools
from dataclasses import asdict, dataclass

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from distdiff.classification.networks import ImageClassifier
from distdiff.data.images import LabelledImages

BATCH = 200


@dataclass(frozen=True)
class Fidelity:
    """frechet_distance >= 0 (lower is closer), label_consistency and coverage in [0, 1] (higher is better)."""

    frechet_distance: float
    label_consistency: float
    coverage: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def measure(
    expanded: LabelledImages, real: LabelledImages, judge: ImageClassifier, size: int, fit: str, num_neighbours: int
) -> Fidelity:
    """Compares `expanded` with `real` images in the features of `judge`."""
    real_features, _ = judge_features(judge, real, size, fit)
    return compare(expanded, real_features, judge, size, fit, num_neighbours)


def compare(
    expanded: LabelledImages,
    real_features: torch.Tensor,
    judge: ImageClassifier,
    size: int,
    fit: str,
    num_neighbours: int,
) -> Fidelity:
    """As `measure`, where the features of the real images are known."""
    expanded_features, predicted = judge_features(judge, expanded, size, fit)
    return Fidelity(
        frechet_distance=frechet_distance(real_features, expanded_features),
        label_consistency=float((predicted.numpy() == expanded.labels).mean()),
        coverage=coverage(real_features.numpy(), expanded_features.numpy(), num_neighbours),
    )


@torch.no_grad()
def judge_features(
    judge: ImageClassifier, images: LabelledImages, size: int, fit: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (n, D) and predicted labels (n,)."""
    features, labels = [], []
    pixels = images.stream(size, fit)
    while chunk := list(itertools.islice(pixels, BATCH)):
        part = judge.features(torch.stack(chunk))
        features.append(part)
        labels.append(judge.head(part).argmax(-1))
    return torch.cat(features), torch.cat(labels)


def frechet_distance(real: torch.Tensor, generated: torch.Tensor) -> float:
    """Frechet distance between Gaussians fitted to features (n, D) and (m, D) (Heusel et al., 2017), by torchmetrics.

    >>> features = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    >>> round(frechet_distance(features, features + 2), 3)  # equal covariances: the squared distance of the means
    12.0
    """
    identity = nn.Identity()
    identity.num_features = real.shape[1]
    metric = FrechetInceptionDistance(feature=identity).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    return float(metric.compute())


def coverage(real: np.ndarray, generated: np.ndarray, num_neighbours: int) -> float:
    """Fraction of real features with a generated one within reach of their k-th real neighbour (Naeem et al., 2020, eq. 4).

    >>> points = np.array([[0.0], [1.0], [2.0], [10.0]])
    >>> coverage(points, np.array([[0.5]]), num_neighbours=1)
    0.5
    """
    num_neighbours = min(num_neighbours, len(real) - 1)
    radii = NearestNeighbors(n_neighbors=num_neighbours + 1).fit(real).kneighbors(real)[0][:, -1]
    nearest = NearestNeighbors(n_neighbors=1).fit(generated).kneighbors(real)[0][:, 0]
    return float((nearest <= radii).mean())
