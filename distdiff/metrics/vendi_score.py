"""The Vendi score as a metric."""

import numpy as np
from sklearn.preprocessing import normalize

from distdiff.metrics.base import Features, Metric

BLOCK = 2**22  # entries of matrices whose eigenvalues are computed at once


class VendiScore(Metric):
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

    def __call__(self, real: Features, generated: Features) -> float:
        ones = np.ones((1, len(generated)), dtype=np.int64)
        return float(generated.once(self, lambda: self.resampled(real, generated, ones))[0])

    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray:
        labels = generated.labels.numpy()
        scores = [
            _scores(normalize(generated.of_class(label).points), counts[:, labels == label])
            for label in generated.classes
        ]
        return np.mean(scores, axis=0) if scores else np.full(len(counts), np.nan)


def _scores(directions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The scores (B,) of resamples of images whose features have the `directions` (n, D)."""
    size = min(directions.shape)
    similar = directions @ directions.T if len(directions) == size else None
    found = []
    for start in range(0, len(counts), rows := max(1, BLOCK // size**2)):
        shares = counts[start : start + rows] / counts[start : start + rows].sum(1, keepdims=True)
        roots = np.sqrt(shares)
        if similar is not None:
            matrices = roots[:, :, None] * similar * roots[:, None, :]
        else:  # the matrix (D, D) has the same eigenvalues, besides zeros
            matrices = np.stack([(scaled := directions * root[:, None]).T @ scaled for root in roots])
        found.append(_effective_numbers(np.linalg.eigvalsh(matrices)))
    return np.concatenate(found)


def _effective_numbers(eigenvalues: np.ndarray) -> np.ndarray:
    """The exponential of the entropy of each row, of which rounding may have made zeros slightly negative."""
    shares = eigenvalues.clip(min=0)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.exp(-(shares * logarithms).sum(-1))
