"""`selection=covariance`: kept and real images together vary as the real images of the class do."""

import numpy as np
import pytest
from conftest import compose
from shown import shown
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.errors import UserError
from distdiff.expansion.assembly import Assembly
from distdiff.selection.covariance import CovarianceMatching, matched


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def selection(**keys) -> CovarianceMatching:
    return CovarianceMatching(**({"ratio": 2, "dimensions": 3, "pool_below": 5, "with_real": True} | keys))


def step_by_step(features: np.ndarray, kept: np.ndarray, target: np.ndarray, wanted: int) -> list[int]:
    """The published procedure in the plainest words: each candidate is tried, with NumPy's covariance."""
    chosen: list[int] = []
    while len(chosen) < wanted:
        distances = {}
        for index in set(range(len(features))) - set(chosen):
            tried = np.concatenate([kept, features[[*chosen, index]]])
            covariance = np.cov(tried.T).reshape(target.shape) if len(tried) > 1 else np.zeros_like(target)
            distances[index] = np.linalg.norm(covariance - target)
        chosen.append(min(distances, key=lambda index: (distances[index], index)))
    return chosen


@pytest.mark.parametrize("num_kept", [0, 1, 4])
def test_each_step_keeps_what_brings_the_sample_covariance_nearest(num_kept: int, rng) -> None:
    features, kept = rng.normal(size=(14, 4)) * 2, rng.normal(size=(num_kept, 4))
    target = np.cov(rng.normal(size=(50, 4)).T)
    assert matched(features, kept, target, 9).tolist() == step_by_step(features, kept, target, 9)


@pytest.mark.parametrize("with_real", [True, False])
def test_a_class_of_many_images_is_matched_to_its_own_covariance(with_real: bool, rng) -> None:
    """Oracle: scikit-learn's PCA of the class alone, then the published procedure."""
    real, features = rng.normal(size=(8, 6)) @ np.diag([5, 4, 3, 1, 1, 1]), rng.normal(size=(12, 6)) * 4
    other = rng.normal(size=(3, 6)) * 100
    candidates = shown(features, np.concatenate([real, other]), np.repeat([0, 1], [8, 3]))
    projection = PCA(3).fit(real)
    own = projection.transform(real)
    expected = step_by_step(projection.transform(features), own if with_real else own[:0], np.cov(own.T), 5)
    assert selection(with_real=with_real).choose(candidates, 5, last=True).tolist() == expected


def test_a_class_of_few_images_is_matched_to_the_covariance_within_all_classes(rng) -> None:
    """Oracle: the covariance within classes of scikit-learn's linear discriminant analysis, per degree of freedom."""
    labels = np.repeat([0, 1, 2], 4)
    real = rng.normal(size=(12, 3)) + 10 * labels[:, None]
    features = rng.normal(size=(12, 3)) * 3
    within = LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True).fit(real, labels).covariance_ * 12 / 9
    expected = step_by_step(features, real[:4], within, 6)  # in all three dimensions, so turning changes nothing
    assert selection().choose(shown(features, real, labels), 6, last=True).tolist() == expected
    assert selection(pool_below=1).choose(shown(features, real, labels), 6, last=True).tolist() != expected


def test_a_class_of_one_image_takes_the_covariance_of_the_others(rng) -> None:
    labels = np.array([0, 1, 1, 1, 2, 2])
    real = rng.normal(size=(6, 3))
    chosen = selection(pool_below=1).choose(shown(rng.normal(size=(6, 3)), real, labels), 4, last=True)
    assert len(set(chosen.tolist())) == 4


def test_what_is_kept_varies_more_like_the_real_images_than_the_first_candidates_do(rng) -> None:
    real = rng.normal(size=(40, 3)) * [3, 1, 0.3]
    features = rng.normal(size=(60, 3)) * 2
    target = np.cov(real.T)
    kept = selection(with_real=False).choose(shown(features, real), 20, last=True)
    distance = [np.linalg.norm(np.cov(features[places].T) - target) for places in (kept, np.arange(20))]
    assert distance[0] < 0.7 * distance[1]


def test_the_order_of_candidates_decides_only_between_equal_ones(rng) -> None:
    real, features = rng.normal(size=(9, 4)), rng.normal(size=(20, 4))
    turned = rng.permutation(20)
    kept = selection().choose(shown(features, real), 8, last=True)
    assert set(turned[selection().choose(shown(features[turned], real), 8, last=True)]) == set(kept)
    same = np.repeat(features[:1], 6, axis=0)
    assert selection().choose(shown(same, real), 4, last=True).tolist() == [0, 1, 2, 3]
    assert selection().choose(shown(features, np.ones((6, 4))), 4, last=True).tolist() == [0, 1, 2, 3]


def test_one_image_a_class_is_refused_before_any_image_is_made(small_run, image_folder) -> None:
    given = [*small_run, "dataset=imagefolder", f"dataset.root='{image_folder}'", "dataset.per_class=1"]
    config = compose("expand", [*given, "selection=covariance"])
    data = few_shot_training_set(config, load_dataset(config.dataset).train, 0)
    with pytest.raises(
        UserError, match=r"^selection=covariance is not allowed: no class has two real images, .* class"
    ):
        Assembly(config, StageCache(config.paths.cache_dir)).job(data, 0)
