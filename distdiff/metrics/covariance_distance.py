"""The distance of within-class covariances as a metric."""

from dataclasses import dataclass

import numpy as np
import torch

from distdiff.metrics.base import CountedMetric, Features
from distdiff.metrics.distances import SAME, longest


class CovarianceDistance(CountedMetric):
    r"""How far the covariance inside classes is from that of the real images, as a relative Frobenius distance.

    .. math:: \|\Sigma_g - \Sigma_r\|_F \;/\; \|\Sigma_r\|_F, \quad \Sigma = \frac{1}{C} \sum_c \Sigma_c

    Σ_c is the unbiased covariance of the features of class c, and all classes count alike. Classes with fewer than two
    real or two generated images are left out; NaN if there is no other class, or if the real images of each of these are
    copies of one. The value is in [0, ∞), and lower is
    better: it is 0 for equal covariances and 1 if the images of each class are copies of one. It falls as the number of
    images rises, so compare only values for equal numbers. Where the means of classes lie plays no part.
    Source: Rezaei et al., "High-dimensional Analysis of Synthetic Data Selection", ICLR 2026 (arXiv 2510.08123), which
    finds that a classifier trained on real and synthetic images is sensitive to the covariance and not to the mean. They
    match covariances in the Frobenius norm; dividing by the norm of the real covariance is our addition, so that the
    value does not depend on the unit of the features.

    >>> import torch
    >>> points, labels = torch.tensor([[0.0], [2.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1])
    >>> CovarianceDistance()(Features(points, labels, labels), Features(2 * points, labels, labels))  # 4 times as large
    3.0
    """

    higher_is_better = False
    limits = (0.0, np.inf)

    def lacks(self, real: Features, generated: Features) -> str | None:
        if lacking := super().lacks(real, generated):
            return lacking
        if not (shared := _shared(real, generated)):
            return "no value, since no class has two real and two new images"
        if np.linalg.norm(_target(real, shared)) <= (SAME * longest(real)) ** 2:
            return "no value, since the real images of each class are copies of one"
        return None

    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray:
        shared = _shared(real, generated)
        target, deviations = _target(real, shared), Deviations.of(generated, shared)
        distances = np.array([np.linalg.norm(deviations.covariance(row) - target) for row in counts])
        return distances / np.linalg.norm(target)


@dataclass(frozen=True)
class Deviations:
    """Features minus the mean of their class, (n, D), and the position of each image's class in a list of classes."""

    deviations: np.ndarray
    classes: np.ndarray
    kept: np.ndarray  # the images that are of one of the classes

    @classmethod
    def of(cls, images: Features, labels: list[int]) -> "Deviations":
        position = {label: place for place, label in enumerate(labels)}
        kept = np.array([place for place, label in enumerate(images.labels.tolist()) if label in position])
        classes = np.array([position[label] for label in images.labels[kept].tolist()])
        points = images.points[kept]
        means = _sums(points, classes, len(labels)) / np.bincount(classes)[:, None]
        return cls(points - means[classes], classes, kept)

    def covariance(self, counts: np.ndarray | None = None) -> np.ndarray:
        """The mean (D, D) of the classes' covariances, where image i is `counts[i]` times among the images."""
        weights = np.ones(len(self.kept)) if counts is None else counts[self.kept].astype(np.float64)
        sizes = np.bincount(self.classes, weights)
        chosen = np.flatnonzero(weights)
        classes, weights = self.classes[chosen], torch.as_tensor(weights[chosen])
        rows = torch.as_tensor(self.deviations[chosen])  # a copy
        means = torch.zeros(len(sizes), rows.shape[1], dtype=rows.dtype)
        means.index_add_(0, torch.as_tensor(classes), rows * weights[:, None]).div_(torch.as_tensor(sizes)[:, None])
        # The sum of squares around the mean of a class is that around any point, less the squared distance to this one.
        rows.mul_((weights / torch.as_tensor((sizes - 1)[classes] * len(sizes))).sqrt()[:, None])
        means.mul_(torch.as_tensor(sizes / (sizes - 1) / len(sizes)).sqrt()[:, None])
        return (rows.T @ rows - means.T @ means).numpy()


def _shared(real: Features, generated: Features) -> list[int]:
    """The classes with two real and two generated images or more."""
    return [label for label in real.classes if min(len(each.of_class(label)) for each in (real, generated)) > 1]


def _target(real: Features, labels: list[int]) -> np.ndarray:
    """The covariance (D, D) of the real images of these classes, which is computed once."""
    return real.once((CovarianceDistance, *labels), lambda: Deviations.of(real, labels).covariance())


def _sums(points: np.ndarray, classes: np.ndarray, number: int) -> np.ndarray:
    """The sum (C, D) of the points of each class."""
    sums = np.zeros((number, points.shape[1]))
    np.add.at(sums, classes, points)
    return sums
