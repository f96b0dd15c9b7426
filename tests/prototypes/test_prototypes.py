"""Prototypes against numpy, SciPy and scikit-learn, and against clusters known beforehand."""

import json

import numpy as np
import pytest
import torch
from counting import steps_of
from safetensors import safe_open
from safetensors.torch import save
from scipy.cluster import hierarchy
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import normalize
from torch.nn import functional as F

from distdiff.errors import UserError
from distdiff.prototypes import hierarchical
from distdiff.prototypes.clustering import choose_groups, cut, group
from distdiff.prototypes.hierarchical import Prototypes, fit_prototypes

LINKAGES = ["average", "complete", "single", "ward"]


def unit_features(n: int, dim: int = 6) -> torch.Tensor:
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1)


def separated(sizes: list[int], dim: int = 16, spread: float = 0.05, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Shuffled unit features in tight clusters around as many orthogonal directions, and their clusters."""
    generator = np.random.default_rng(seed)
    clusters = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    points = np.eye(dim)[clusters] + spread * generator.normal(size=(len(clusters), dim))
    return torch.from_numpy(normalize(points)), clusters


def partition(groups: np.ndarray) -> set[frozenset[int]]:
    """The groups as sets of positions, whatever their numbers."""
    return {frozenset(np.flatnonzero(groups == number).tolist()) for number in np.unique(groups)}


def grouped(features: torch.Tensor, num_groups: int | str, linkage: str = "average", **options: int) -> np.ndarray:
    return group(
        features, num_groups, linkage=linkage, **{"max_groups": 10, "max_clustered": 5000, "seed": 0} | options
    )


@pytest.mark.parametrize("linkage", LINKAGES)
def test_prototypes_are_normalised_means_of_classes_and_clusters(linkage: str) -> None:
    features, labels = unit_features(40), np.arange(40) % 2
    fitted = fit_prototypes(features, labels, num_classes=2, num_groups=3, linkage=linkage)
    for label in range(2):
        members = features.numpy()[labels == label]
        np.testing.assert_allclose(fitted.classes[label], normalize(members.mean(0, keepdims=True))[0], atol=1e-12)
        clusters = AgglomerativeClustering(3, linkage=linkage).fit_predict(members)
        expected = np.concatenate([normalize(members[clusters == k].mean(0, keepdims=True)) for k in range(3)])
        np.testing.assert_allclose(fitted.groups[label], expected, atol=1e-12)
        assert fitted.counts[label].tolist() == np.bincount(clusters).tolist()


def test_a_class_is_told_from_the_others_whatever_the_order_of_labels() -> None:
    features, labels = unit_features(60), np.random.default_rng(0).integers(0, 4, 60)
    fitted = fit_prototypes(features, labels, num_classes=4, num_groups=1, linkage="average")
    for label in range(4):
        expected = normalize(features.numpy()[labels == label].mean(0, keepdims=True))
        np.testing.assert_allclose(fitted.classes[label], expected[0], atol=1e-12)
        np.testing.assert_allclose(fitted.groups[label], expected, atol=1e-12)
    assert fitted.counts[:, 0].tolist() == np.bincount(labels).tolist()


def test_a_class_with_fewer_images_than_groups_gets_a_group_an_image() -> None:
    features, labels = unit_features(4), np.array([0, 0, 0, 1])
    fitted = fit_prototypes(features, labels, num_classes=2, num_groups=3, linkage="average")
    assert fitted.present.tolist() == [[True, True, True], [True, False, False]]
    assert fitted.counts.tolist() == [[1, 1, 1], [1, 0, 0]]
    torch.testing.assert_close(fitted.groups[1, 0], features[3])
    assert not fitted.groups[1, 1:].any()


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("num_groups", [3, "auto"])
def test_duplicate_images_are_no_obstacle(num_groups: int | str, linkage: str) -> None:
    features = unit_features(3).repeat(5, 1)
    labels = np.repeat([0, 1], [10, 5])
    fitted = fit_prototypes(torch.cat([features[:10], features[:1].repeat(5, 1)]), labels, 2, num_groups, linkage)
    assert torch.isfinite(fitted.groups).all()
    assert fitted.counts.sum(1).tolist() == [10, 5]
    three = {frozenset(range(start, 10, 3)) for start in range(3)}
    assert partition(grouped(features[:10], num_groups, linkage)) == three


def test_an_empty_class_is_refused() -> None:
    with pytest.raises(UserError, match="class number 1 has no training image"):
        fit_prototypes(unit_features(2), np.array([0, 0]), num_classes=2, num_groups=1, linkage="average")


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("true_number", [2, 3, 5, 9])
def test_auto_finds_the_number_of_separated_clusters(true_number: int, linkage: str) -> None:
    features, clusters = separated([12 + 3 * i for i in range(true_number)])
    assert partition(grouped(features, "auto", linkage)) == partition(clusters)


def test_auto_takes_the_number_that_scikit_learn_scores_best() -> None:
    features = unit_features(60, dim=3)
    candidates = [AgglomerativeClustering(k, linkage="average").fit_predict(features) for k in range(2, 8)]
    best = max(candidates, key=lambda groups: silhouette_score(features, groups))
    assert partition(grouped(features, "auto", max_groups=7)) == partition(best)


def test_auto_keeps_one_group_where_all_images_are_equally_far_apart() -> None:
    assert partition(grouped(torch.eye(12, dtype=torch.float64), "auto")) == {frozenset(range(12))}


def test_auto_scores_a_round_cloud_close_to_nothing() -> None:
    """Such a score is above 0 nevertheless, so that the cloud is split: what the docstring of `choose_groups` says."""
    features = unit_features(200, dim=512).numpy()
    groups = choose_groups(features, 10, "average")
    assert 2 <= groups.max() + 1 <= 10
    assert 0 < silhouette_score(features, groups) < 0.05


@pytest.mark.parametrize("num_images", [1, 2, 3])
def test_a_few_images_suffice_for_auto(num_images: int) -> None:
    features = unit_features(num_images)
    groups = grouped(features, "auto")
    assert len(groups) == num_images
    assert len(partition(groups)) <= max(1, num_images - 1)
    fitted = fit_prototypes(features, np.zeros(num_images, dtype=int), 1, "auto", "average")
    assert fitted.counts.sum() == num_images


@pytest.mark.parametrize("noise", [0, 1e-8])
def test_auto_counts_an_image_that_is_there_twice_once(noise: float) -> None:
    twice = unit_features(2).repeat(4, 1)
    twice = twice + noise * torch.randn(twice.shape, generator=torch.Generator().manual_seed(1))
    assert len(partition(grouped(twice, "auto"))) == 1


@pytest.mark.parametrize("linkage", LINKAGES)
def test_a_tree_is_cut_into_scikit_learns_groups(linkage: str) -> None:
    features = unit_features(50).numpy()
    tree = hierarchy.linkage(features, linkage)
    for num_groups in (1, 2, 7, 50):
        expected = AgglomerativeClustering(num_groups, linkage=linkage).fit_predict(features)
        assert partition(cut(tree, num_groups)) == partition(expected)


def test_a_class_may_have_fewer_groups_than_another_by_auto() -> None:
    (many, of_many), (few, of_few) = separated([9, 9, 9, 9]), separated([8, 8], seed=1)
    labels = np.repeat([0, 1], [len(many), len(few)])
    fitted = fit_prototypes(torch.cat([many, few]), labels, 2, "auto", "average")
    assert fitted.counts.tolist() == [[9, 9, 9, 9], [8, 8, 0, 0]]
    assert fitted.groups.shape == (2, 4, 16)
    for label, features, clusters in ((0, many, of_many), (1, few, of_few)):
        means = [normalize(features[clusters == k].mean(0, keepdims=True))[0] for k in range(clusters.max() + 1)]
        found = fitted.groups[label, : len(means)].numpy()
        np.testing.assert_allclose(np.sort(found, axis=0), np.sort(means, axis=0), atol=1e-12)


@pytest.mark.parametrize("num_groups", [4, "auto"])
def test_a_large_class_reduced_to_a_few_images_has_the_same_groups(num_groups: int | str) -> None:
    features, clusters = separated([2000, 600, 300, 100], spread=0.1)
    reduced = grouped(features, num_groups, max_clustered=500)
    assert partition(reduced) == partition(clusters)
    assert partition(reduced) == partition(grouped(features, num_groups))


def test_prototypes_of_a_reduced_class_are_means_over_all_its_images() -> None:
    features, clusters = separated([2000, 700, 300], spread=0.1)
    fitted = fit_prototypes(features, np.zeros(3000, dtype=int), 1, 3, "average", max_clustered=500)
    by_size = fitted.groups[0, fitted.counts[0].argsort(descending=True)]
    expected = np.concatenate([normalize(features[clusters == k].mean(0, keepdims=True)) for k in range(3)])
    np.testing.assert_allclose(by_size, expected, atol=1e-12)
    assert fitted.metadata["reduced_classes"] == [0]


def test_the_draw_of_a_reduced_class_is_its_seeds_alone() -> None:
    features = unit_features(400)
    first, again, other = (grouped(features, 5, max_clustered=100, seed=seed) for seed in (7, 7, 8))
    assert partition(first) == partition(again) != partition(other)
    labels = np.zeros(400, dtype=int)
    alone = fit_prototypes(features, labels, 1, 5, "average", max_clustered=100, seed=3)
    with_a_neighbour = torch.cat([features, unit_features(10)]), np.append(labels, np.ones(10, dtype=int))
    beside = fit_prototypes(*with_a_neighbour, 2, 5, "average", max_clustered=100, seed=3)
    torch.testing.assert_close(alone.groups[0], beside.groups[0], atol=0, rtol=0)


def test_a_class_of_no_more_than_max_clustered_images_is_not_reduced() -> None:
    features = unit_features(100)
    expected = AgglomerativeClustering(3, linkage="average").fit_predict(features)
    np.testing.assert_array_equal(grouped(features, 3, max_clustered=100), expected)
    fitted = fit_prototypes(features, np.zeros(100, dtype=int), 1, 3, "average", max_clustered=100)
    assert fitted.metadata["reduced_classes"] == []


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("num_groups", [3, "auto"])
def test_the_order_of_the_images_changes_no_group(num_groups: int | str, linkage: str) -> None:
    features = unit_features(80)
    order = np.random.default_rng(0).permutation(80)
    shuffled = grouped(features[torch.from_numpy(order)], num_groups, linkage)
    back = np.empty_like(shuffled)
    back[order] = shuffled
    assert partition(back) == partition(grouped(features, num_groups, linkage))


def test_saved_prototypes_come_back_with_their_metadata(tmp_path) -> None:
    fitted = fit_prototypes(
        unit_features(310), np.append(np.arange(10) % 2, np.zeros(300)), 2, 3, "ward", max_clustered=100
    )
    fitted.described(class_names=["a", "ü"], encoder={"guide": "0123"}).save(tmp_path / "p.safetensors")
    loaded = Prototypes.load(tmp_path / "p.safetensors")
    for name in ("classes", "groups", "counts", "present"):
        torch.testing.assert_close(getattr(loaded, name), getattr(fitted, name), atol=0, rtol=0)
    assert loaded.counts.dtype == torch.int64
    assert loaded.metadata == {
        "format": 1,
        "num_groups": 3,
        "linkage": "ward",
        "max_clustered": 100,
        "reduced_classes": [0],
        "seed": 0,
        "class_names": ["a", "ü"],
        "encoder": {"guide": "0123"},
    }
    with safe_open(tmp_path / "p.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["distdiff"]) == loaded.metadata
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "p.safetensors").read_bytes()


def test_moving_prototypes_keeps_counts_and_metadata() -> None:
    fitted = fit_prototypes(unit_features(10), np.arange(10) % 2, 2, "auto", "average").described(
        class_names=["a", "b"]
    )
    moved = fitted.to("cpu", torch.float32)
    assert moved.classes.dtype == moved.groups.dtype == torch.float32
    assert moved.counts.tolist() == fitted.counts.tolist()
    assert moved.metadata == fitted.metadata


def wrong_files() -> dict[str, bytes]:
    tensors = {
        "classes": torch.zeros(1, 2),
        "groups": torch.zeros(1, 1, 2),
        "counts": torch.ones(1, 1, dtype=torch.int64),
    }
    return {
        "empty": b"",
        "text": b"no prototypes at all, but longer than a header",
        "of_someone_else": save(tensors),
        "of_another_format": save(tensors, {"distdiff": '{"format": 99}'}),
        "with_a_list": save(tensors, {"distdiff": "[1]"}),
        "with_torn_metadata": save(tensors, {"distdiff": '{"format"'}),
        "without_counts": save({"classes": tensors["classes"]}, {"distdiff": '{"format": 1}'}),
    }


@pytest.mark.parametrize("kind", [*wrong_files(), "torn", "missing", "folder"])
def test_a_file_that_holds_no_prototypes_is_refused_in_one_line_by_name(kind: str, tmp_path) -> None:
    path = tmp_path / f"{kind}.safetensors"
    if kind in wrong_files():
        path.write_bytes(wrong_files()[kind])
    elif kind == "torn":
        fit_prototypes(unit_features(10), np.arange(10) % 2, 2, 3, "average").save(path)
        path.write_bytes(path.read_bytes()[:-7])
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(UserError) as caught:
        Prototypes.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_work_grows_with_the_classes_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a thousand classes take seconds; experiments/studies/prototype_scale.py measures how many."""
    clustered = []

    def noted(members: torch.Tensor, *more: object) -> np.ndarray:
        clustered.append(len(members))
        return group(members, *more)

    monkeypatch.setattr(hierarchical, "group", noted)

    def steps(num_classes: int) -> int:
        count = 10 * num_classes
        features, labels = unit_features(count, dim=64).float(), np.arange(count) % num_classes
        return steps_of(lambda: fit_prototypes(features, labels, num_classes, 3, "average"))

    steps(1)  # what the first time alone costs
    few, more = steps(100), steps(200)
    assert more < 2.1 * few
    assert set(clustered) == {10}  # each class by itself


def test_a_thousand_classes_have_a_thousand_prototypes() -> None:
    features, labels = unit_features(10_000, dim=64).float(), np.arange(10_000) % 1000
    fitted = fit_prototypes(features, labels, 1000, 3, "average")
    assert fitted.counts.sum(1).tolist() == [10] * 1000
