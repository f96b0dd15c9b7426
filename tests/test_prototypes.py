"""Prototypes against numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.preprocessing import normalize
from torch.nn import functional as F

from distdiff.errors import UserError
from distdiff.prototypes.hierarchical import Prototypes, fit_prototypes


def unit_features(n: int, dim: int = 6) -> torch.Tensor:
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("linkage", ["average", "ward"])
def test_prototypes_are_normalised_means_of_classes_and_clusters(linkage: str) -> None:
    features, labels = unit_features(40), np.arange(40) % 2
    fitted = fit_prototypes(features, labels, num_classes=2, num_groups=3, linkage=linkage)
    for label in range(2):
        members = features.numpy()[labels == label]
        np.testing.assert_allclose(fitted.classes[label], normalize(members.mean(0, keepdims=True))[0], atol=1e-12)
        clusters = AgglomerativeClustering(3, linkage=linkage).fit_predict(members)
        expected = np.concatenate([normalize(members[clusters == k].mean(0, keepdims=True)) for k in range(3)])
        np.testing.assert_allclose(fitted.groups[label], expected, atol=1e-12)


def test_a_class_with_fewer_images_than_groups_gets_a_group_an_image() -> None:
    features, labels = unit_features(4), np.array([0, 0, 0, 1])
    fitted = fit_prototypes(features, labels, num_classes=2, num_groups=3, linkage="average")
    assert fitted.present.tolist() == [[True, True, True], [True, False, False]]
    torch.testing.assert_close(fitted.groups[1, 0], features[3])


def test_duplicate_images_are_no_obstacle() -> None:
    features = unit_features(1).repeat(5, 1)
    fitted = fit_prototypes(features, np.zeros(5, dtype=int), num_classes=1, num_groups=3, linkage="average")
    assert torch.isfinite(fitted.groups).all()


def test_an_empty_class_is_refused() -> None:
    with pytest.raises(UserError, match="has no training image"):
        fit_prototypes(unit_features(2), np.array([0, 0]), num_classes=2, num_groups=1, linkage="average")


def test_saved_prototypes_come_back(tmp_path) -> None:
    fitted = fit_prototypes(unit_features(10), np.arange(10) % 2, 2, 3, "average")
    fitted.save(tmp_path / "p.safetensors", {"class_names": ["a", "b"]})
    loaded = Prototypes.load(tmp_path / "p.safetensors")
    for name in ("classes", "groups", "present"):
        torch.testing.assert_close(getattr(loaded, name), getattr(fitted, name), atol=0, rtol=0)
