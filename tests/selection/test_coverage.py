"""`selection=coverage`: greedy k-centre and facility location in φ, starting from the real images."""

from itertools import combinations

import numpy as np
import pytest
from shown import shown
from sklearn.metrics import pairwise_distances

from distdiff.selection.coverage import Coverage


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def radius(features: np.ndarray, kept: np.ndarray) -> float:
    """What k-centre keeps small: the largest distance of a candidate to the nearest kept image."""
    return pairwise_distances(features, kept).min(1).max()


def spread(features: np.ndarray, kept: np.ndarray) -> float:
    """What facility location keeps small: the sum of the distances to the nearest kept image."""
    return pairwise_distances(features, kept).min(1).sum()


def chosen(objective: str, features: np.ndarray, real: np.ndarray, wanted: int) -> list[int]:
    return Coverage(ratio=2, objective=objective).choose(shown(features, real), wanted, last=True).tolist()


def test_k_centre_adds_the_farthest_from_the_real_and_the_kept_images(rng) -> None:
    features, real = rng.normal(size=(12, 3)), rng.normal(size=(2, 3))
    found = chosen("k_center", features, real, 6)
    for step, index in enumerate(found):
        kept = np.concatenate([real, features[found[:step]]])
        away = {place: np.linalg.norm(kept - features[place], axis=1).min() for place in range(12)}
        assert away[index] == pytest.approx(max(away.values()))
    assert len(set(found)) == 6


def test_facility_location_adds_what_lowers_the_sum_of_distances_most(rng) -> None:
    features, real = rng.normal(size=(12, 3)), rng.normal(size=(2, 3))
    found = chosen("facility_location", features, real, 6)
    for step, index in enumerate(found):
        others = set(range(12)) - set(found[:step])
        sums = {i: spread(features, np.concatenate([real, features[[*found[:step], i]]])) for i in others}
        assert sums[index] == pytest.approx(min(sums.values()))


def test_both_are_as_near_to_the_best_choice_as_their_theorems_promise(rng) -> None:
    """Oracle: all choices of four among ten. Greedy k-centre has at most twice the smallest radius (Gonzalez, 1985);
    greedy facility location at least 1 − 1/e of the largest gain (Nemhauser et al., 1978)."""
    for _ in range(20):
        features, real = rng.normal(size=(10, 2)), rng.normal(size=(1, 2))
        sets = [np.concatenate([real, features[list(places)]]) for places in combinations(range(10), 4)]
        ours = {name: np.concatenate([real, features[chosen(name, features, real, 4)]]) for name in NAMES}
        assert radius(features, ours["k_center"]) <= 2 * min(radius(features, kept) for kept in sets) + 1e-12
        gain = spread(features, real) - spread(features, ours["facility_location"])
        best = spread(features, real) - min(spread(features, kept) for kept in sets)
        assert gain >= (1 - 1 / np.e) * best - 1e-12


NAMES = ("k_center", "facility_location")


@pytest.mark.parametrize("objective", NAMES)
def test_a_copy_of_a_real_image_or_of_a_kept_one_comes_last(objective: str, rng) -> None:
    real = rng.normal(size=(2, 3))
    features = np.concatenate([real, rng.normal(size=(4, 3)) * 3])
    features = np.concatenate([features, features[3:4]])
    found = chosen(objective, features, real, 7)
    assert sorted(found) == list(range(7))
    assert set(found[-3:]) == {0, 1, 6}


@pytest.mark.parametrize("objective", NAMES)
def test_the_order_of_candidates_decides_only_between_equal_ones(objective: str, rng) -> None:
    real, features = rng.normal(size=(3, 4)), rng.normal(size=(20, 4))
    turned = rng.permutation(20)
    there, here = chosen(objective, features[turned], real, 8), chosen(objective, features, real, 8)
    assert turned[there].tolist() == here
    assert chosen(objective, np.ones((6, 4)), real, 4) == [0, 1, 2, 3]
    assert chosen(objective, features[:3], real, 5) == chosen(objective, features[:3], real, 3)
