"""Each metric against what is known: closed forms, plain transcriptions of the formulas, and sets whose answer is clear."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf
from scipy.spatial.distance import pdist
from torchmetrics.image.kid import poly_mmd

from distdiff.keys import build
from distdiff.metrics.base import Features, Metric
from distdiff.metrics.covariance_distance import CovarianceDistance
from distdiff.metrics.coverage import Coverage
from distdiff.metrics.density import Density
from distdiff.metrics.diversity import Diversity
from distdiff.metrics.energy import MeanEnergy
from distdiff.metrics.frechet_distance import FrechetDistance
from distdiff.metrics.kernel_distance import KernelDistance
from distdiff.metrics.near_copies import NearCopies
from distdiff.metrics.nearest_real import NearestReal
from distdiff.metrics.precision import Precision
from distdiff.metrics.recall import Recall
from distdiff.metrics.vendi_score import VendiScore

NAMES = sorted(path.stem for path in (ROOT / "conf/metric").glob("*.yaml"))
METRICS: dict[str, Metric] = {name: build(OmegaConf.load(ROOT / f"conf/metric/{name}.yaml")) for name in NAMES}


def images(points: np.ndarray, labels: np.ndarray | None = None) -> Features:
    """Points as features; without labels, they have three classes in turn. The judge is right about two in three."""
    classes = torch.as_tensor(np.arange(len(points)) % 3 if labels is None else labels)
    return Features(
        torch.as_tensor(points), classes, torch.where(torch.arange(len(points)) % 9 < 6, classes, classes + 1)
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def plain_balls(centres: np.ndarray, points: np.ndarray, k: int) -> list[list[bool]]:
    """For each centre, which points are no farther than its k-th nearest other centre, one distance at a time."""
    found = []
    for place, centre in enumerate(centres):
        others = sorted(math.dist(centre, other) for number, other in enumerate(centres) if number != place)
        found.append([math.dist(centre, point) <= others[k - 1] for point in points])
    return found


@pytest.mark.parametrize("k", [1, 3, 5, 7])
def test_neighbourhood_metrics_are_their_formulas(rng: np.random.Generator, k: int) -> None:
    real, generated = rng.normal(size=(29, 4)), 0.8 * rng.normal(size=(17, 4)) + 0.5
    of_real, of_generated = plain_balls(real, generated, k), plain_balls(generated, real, k)
    expected = {
        Precision: sum(any(ball[j] for ball in of_real) for j in range(17)) / 17,
        Recall: sum(any(ball[i] for ball in of_generated) for i in range(29)) / 29,
        Density: sum(sum(ball) for ball in of_real) / (17 * k),
        Coverage: sum(any(ball) for ball in of_real) / 29,
    }
    for metric, value in expected.items():
        assert metric(num_neighbours=k)(images(real), images(generated)) == pytest.approx(value), metric
    assert 0 < expected[Precision] < 1 or k > 3


def test_blocks_of_distances_do_not_change_a_value(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = rng.normal(size=(60, 4)), rng.normal(size=(45, 4)) + 0.3
    whole = {name: metric(images(real), images(generated)) for name, metric in METRICS.items()}
    for module in ("distances", "kernel_distance"):
        monkeypatch.setattr(f"distdiff.metrics.{module}.BLOCK", 100)
    monkeypatch.setattr("distdiff.metrics.distances.KEPT", 0)
    parts = {name: metric(images(real), images(generated)) for name, metric in METRICS.items()}
    assert parts == pytest.approx(whole, rel=1e-12)


def test_the_kernel_distance_is_its_double_sum_and_that_of_torchmetrics(rng: np.random.Generator) -> None:
    real, generated = rng.normal(size=(12, 5)), rng.normal(size=(9, 5)) + 0.5

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(x * y for x, y in zip(a, b, strict=True)) / 5 + 1) ** 3

    def among(points: np.ndarray) -> float:
        values = [kernel(a, b) for i, a in enumerate(points) for j, b in enumerate(points) if i != j]
        return sum(values) / len(values)

    across = sum(kernel(a, b) for a in real for b in generated) / (12 * 9)
    expected = among(real) + among(generated) - 2 * across
    assert KernelDistance()(images(real), images(generated)) == pytest.approx(expected, rel=1e-12)
    # torchmetrics divides by the same number of pairs where both sets have as many images, but leaves pairs in between.
    other = poly_mmd(torch.as_tensor(real[:9]), torch.as_tensor(generated))
    assert KernelDistance()(images(real[:9]), images(generated)) == pytest.approx(float(other), rel=1e-12)


def test_the_kernel_distance_is_unbiased_and_the_frechet_distance_is_not(rng: np.random.Generator) -> None:
    """Small sets of one distribution: the mean over many pairs of sets is zero within its error."""
    pairs = [(images(rng.normal(size=(12, 8))), images(rng.normal(size=(8, 8)))) for _ in range(300)]
    values = np.array([KernelDistance()(*pair) for pair in pairs])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(len(values))
    assert min(FrechetDistance()(*pair) for pair in pairs[:20]) > 1


def test_gaussians_have_the_distances_of_their_closed_forms(rng: np.random.Generator) -> None:
    """The Frechet distance of Gaussians, the kernel distance in one dimension from their moments, and covariances."""
    real = rng.normal(size=(20_000, 2)) * [1.0, 2.0]
    generated = rng.normal(size=(20_000, 2)) * [2.0, 1.0] + [1.0, 0.0]
    closed = 1.0 + (2 - 1) ** 2 + (1 - 2) ** 2
    assert FrechetDistance()(images(real), images(generated)) == pytest.approx(closed, rel=0.03)
    # Both have the covariance in every class; the difference is diag(3, -3), and the real one is diag(1, 4).
    closed = math.sqrt(18) / math.sqrt(17)
    assert CovarianceDistance()(images(real), images(generated)) == pytest.approx(closed, rel=0.03)
    # E k(x, y) of independent x and y in one dimension is the sum of binomial(3, n) E x^n E y^n.
    moments = [[1, 0, 1, 0], [1, 1, 1 + 0.25, 1 + 3 * 0.25]]  # of N(0, 1) and N(1, 1/4)
    closed = sum(math.comb(3, n) * (moments[0][n] - moments[1][n]) ** 2 for n in range(4))
    pairs = [(rng.normal(size=(500, 1)), 0.5 * rng.normal(size=(500, 1)) + 1) for _ in range(50)]
    found = np.mean([KernelDistance()(images(one), images(other)) for one, other in pairs])
    assert found == pytest.approx(closed, rel=0.05)


def test_covariances_are_those_inside_classes(rng: np.random.Generator) -> None:
    """Oracle: numpy's covariance of each class; classes that lie elsewhere change nothing."""
    sizes = {0: (9, 5), 1: (4, 7), 2: (6, 1), 4: (0, 8)}  # the last two are too small on one side
    labels = [np.repeat(list(sizes), [pair[side] for pair in sizes.values()]) for side in (0, 1)]
    real, generated = (rng.normal(size=(len(each), 3)) + each[:, None] for each in labels)
    covariance = [
        np.mean([np.cov(points[each == label].T) for label in (0, 1)], axis=0)
        for points, each in ((real, labels[0]), (generated, labels[1]))
    ]
    expected = np.linalg.norm(covariance[1] - covariance[0]) / np.linalg.norm(covariance[0])
    metric = CovarianceDistance()
    assert metric(images(real, labels[0]), images(generated, labels[1])) == pytest.approx(expected)
    moved = generated + 10 * labels[1][:, None]
    assert metric(images(real, labels[0]), images(moved, labels[1])) == pytest.approx(expected)
    copies = np.repeat(generated[:2], 6, axis=0)
    assert metric(images(real, labels[0]), images(copies, np.repeat([0, 1], 6))) == pytest.approx(1)
    assert math.isnan(metric(images(real, labels[0]), images(generated[:1], labels[1][:1])))


def test_diversity_is_the_mean_distance_of_pairs_inside_classes(rng: np.random.Generator) -> None:
    labels = np.array([0] * 5 + [1] * 8 + [7])
    points = rng.normal(size=(14, 3)) + 9 * labels[:, None]
    expected = (pdist(points[:5]).mean() + pdist(points[5:13]).mean()) / 2  # the class of one image is left out
    assert Diversity()(None, images(points, labels)) == pytest.approx(expected)
    assert math.isnan(Diversity()(None, images(points[[0, 6]], labels[[0, 6]])))


@pytest.mark.parametrize("dimensions", [3, 40])
def test_the_vendi_score_is_its_formula(rng: np.random.Generator, dimensions: int) -> None:
    """A transcription with the similarity matrix itself, with fewer and with more dimensions than images."""
    labels, scores = np.array([0] * 6 + [1] * 9), []
    points = rng.normal(size=(15, dimensions)) + 1
    for label in (0, 1):
        unit = [point / np.linalg.norm(point) for point in points[labels == label]]
        similar = np.array([[a @ b for b in unit] for a in unit]) / len(unit)
        eigenvalues = [value for value in np.linalg.eigvals(similar).real if value > 1e-12]
        scores.append(math.exp(-sum(value * math.log(value) for value in eigenvalues)))
    assert VendiScore()(None, images(points, labels)) == pytest.approx(np.mean(scores), rel=1e-6)
    copies = np.repeat(points[:1], 4, axis=0)
    assert VendiScore()(None, images(copies, np.zeros(4, dtype=int))) == pytest.approx(1)
    assert VendiScore()(None, images(np.eye(7), np.zeros(7, dtype=int))) == pytest.approx(7)


def test_the_nearest_real_image_is_found_and_planted_copies_are_counted(rng: np.random.Generator) -> None:
    real, generated = rng.normal(size=(200, 6)).astype(np.float32), rng.normal(size=(50, 6)).astype(np.float32)
    own = [min(math.dist(a, b) for j, b in enumerate(real) if i != j) for i, a in enumerate(real)]
    distances = [min(math.dist(a, b) for b in real) for a in generated]
    assert NearestReal()(images(real), images(generated)) == pytest.approx(np.median(distances) / np.median(own))
    near = NearCopies(quantile=0.01)
    before = near(images(real), images(generated))
    assert before == np.mean(np.array(distances) <= np.quantile(own, 0.01))
    generated[:10] = real[20:30]
    generated[10:15] = real[:5] + 1e-3
    assert near(images(real), images(generated)) >= 15 / 50 > before
    assert NearestReal()(images(real), images(real)) == 0


def test_a_copy_is_found_where_real_images_are_copies_of_each_other(rng: np.random.Generator) -> None:
    """The quantile is zero there, and rounding must not decide."""
    real = np.repeat(rng.normal(size=(10, 300)) + 50, 3, axis=0).astype(np.float32)
    generated = np.concatenate([real[:5] * (1 + 1e-7), rng.normal(size=(5, 300)) + 50])
    assert NearCopies(quantile=0.01)(images(real), images(generated)) == 0.5
    assert math.isnan(NearestReal()(images(real), images(generated)))  # without a unit


def test_energy_is_the_distance_to_the_classs_direction(rng: np.random.Generator) -> None:
    labels = np.repeat([0, 1], 6)
    real, generated = rng.normal(size=(12, 4)) + 1, rng.normal(size=(7, 4))
    of_generated, energies = np.array([0, 1, 1, 0, 0, 5, 1]), []  # the class 5 has no real images
    for point, label in zip(generated, of_generated, strict=True):
        if label != 5:
            mean = sum(each / np.linalg.norm(each) for each in real[labels == label])
            energies.append(math.dist(point / np.linalg.norm(point), mean / np.linalg.norm(mean)))
    found = MeanEnergy()(images(real, labels), images(generated, of_generated))
    assert found == pytest.approx(np.mean(energies))


# What two sets of one distribution have: (least, greatest).
HALVES: dict[str, tuple[float, float]] = {
    **{"frechet_distance": (0, 0.3), "kernel_distance": (-0.1, 0.1), "covariance_distance": (0, 0.2)},
    **dict.fromkeys(("precision", "recall", "coverage"), (0.9, 1.0)),
    **{
        "density": (0.9, 1.1),
        "nearest_real": (0.9, 1.1),
        "near_copies": (0.0, 0.03),
        "label_consistency": (2 / 3, 2 / 3),
    },
}
OWN = {"diversity", "vendi_score", "energy"}  # have no value that is known without the images


@pytest.mark.parametrize("name", NAMES)
def test_two_halves_of_one_set_are_alike_whatever_their_order(name: str, rng: np.random.Generator) -> None:
    points, metric = rng.normal(size=(1800, 4)) + 1, METRICS[name]
    real, generated = images(points[:900]), images(points[900:])
    value = metric(real, generated)
    if name in OWN:
        assert value == pytest.approx(metric(generated, real), rel=0.05)
    else:
        low, high = HALVES[name]
        assert low - 1e-9 <= value <= high + 1e-9
    shuffled = (each.select(torch.as_tensor(rng.permutation(900))) for each in (real, generated))
    assert metric(*shuffled) == pytest.approx(value, rel=1e-9, abs=1e-12)


FAR: dict[str, Callable[[float, float], bool]] = {  # of the values for good and for bad images
    **dict.fromkeys(("frechet_distance", "kernel_distance", "nearest_real", "energy"), lambda good, bad: bad > good),
    **dict.fromkeys(("precision", "recall", "density", "coverage"), lambda good, bad: bad < good),
}


@pytest.mark.parametrize("name", FAR)
def test_images_that_are_unlike_the_real_ones_are_farther(name: str, rng: np.random.Generator) -> None:
    real, like, unlike = (images(rng.normal(size=(90, 4)) + shift) for shift in (2, 2, -2))
    assert FAR[name](METRICS[name](real, like), METRICS[name](real, unlike))


def test_every_metric_has_a_range_that_holds_its_values(rng: np.random.Generator) -> None:
    real, generated = images(rng.normal(size=(40, 3))), images(rng.normal(size=(30, 3)) - 1)
    for name, metric in METRICS.items():
        assert metric.limits[0] <= metric(real, generated) <= metric.limits[1], name
