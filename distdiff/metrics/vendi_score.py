"""The Vendi score as a metric."""

import numpy as np
import torch
from sklearn.preprocessing import normalize

from distdiff.metrics.base import CountedMetric, Features

BLOCK = 2**22  # entries of matrices whose eigenvalues are computed at once


class VendiScore(CountedMetric):
    r"""The effective number of different generated images in a class, averaged over the classes.

    .. math:: \frac{1}{C} \sum_c \exp\Big(-\sum_i \lambda_{c,i} \log \lambda_{c,i}\Big)

    λ_c are the eigenvalues of K_c / M_c, where K_c (M_c, M_c) holds the cosine similarities of the features of the M_c
    generated images of class c. The value is between 1, if all images of a class are copies of one, and the number of
    images in a class, if all are orthogonal; higher is better as long as the images stay in their classes. It rises
    with the number of images, so compare only values for equal numbers. Features that are never negative, such as a
    judge's, have similar directions, so that scores are low: compare them with the baseline value. All classes count
    alike; NaN if there are no generated images. The real images are not used.
    Source: Friedman and Dieng, "The Vendi Score: A Diversity Evaluation Metric for Machine Learning", TMLR 2023, def. 3.1.

    >>> import torch
    >>> points, labels = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [2.0, 2.0]]), torch.tensor([0, 0, 1, 1])
    >>> round(VendiScore()(None, Features(points, labels, labels)), 6)  # two of class 0, one of class 1
    1.5
    """

    higher_is_better = True
    limits = (1.0, np.inf)
    least_real = 0

    def __call__(self, real: Features, generated: Features) -> float:
        value = super().__call__
        return generated.once(self, lambda: value(real, generated))

    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray:
        labels = generated.labels.numpy()
        scores = [
            _scores(normalize(generated.of_class(label).points), counts[:, labels == label])
            for label in generated.classes
        ]
        return np.mean(scores, axis=0) if scores else np.full(len(counts), np.nan)


def _scores(directions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The scores (B,) of resamples of images whose features have the `directions` (n, D)."""
    points, shares = torch.as_tensor(directions), torch.as_tensor(counts / counts.sum(1, keepdims=True))
    size, found = min(directions.shape), []
    similar = points @ points.T if len(points) == size else None
    for part in shares.split(max(1, BLOCK // size**2)):
        if similar is not None:
            roots = part.sqrt()
            matrices = roots[:, :, None] * similar * roots[:, None, :]
        else:  # the matrix (D, D) has the same eigenvalues, besides zeros
            matrices = torch.stack([_second_moment(points, each) for each in part])
        found.append(_effective_numbers(torch.linalg.eigvalsh(matrices)))
    return torch.cat(found).numpy()


def _second_moment(points: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    chosen = shares.nonzero()[:, 0]
    scaled = points[chosen].mul_(shares[chosen].sqrt()[:, None])
    return scaled.T @ scaled


def _effective_numbers(eigenvalues: torch.Tensor) -> torch.Tensor:
    """The exponential of the entropy of each row, in which rounding may have moved a zero below zero or a one above one."""
    return torch.special.entr(eigenvalues.clamp(min=0)).sum(-1).exp().clamp(min=1)
