"""The hierarchical energy, against its definition."""

import pytest
import torch
from bench import CLASS_WEIGHT, GROUP_WEIGHT, GROUPS, Bench
from torch.nn import functional as F

from distdiff.energy.hierarchical import HierarchicalEnergy


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def test_energy_is_the_sum_of_weighted_distances(bench: Bench) -> None:
    features = F.normalize(torch.randn(3, bench.encoder.classifier.feature_dim, dtype=torch.float64), dim=-1)
    energies = bench.energy(features, bench.labels)
    for i, label in enumerate(bench.labels):
        present = [g for g in range(GROUPS) if bench.prototypes.present[label, g]]
        nearest = max(present, key=lambda g: float(features[i] @ bench.prototypes.groups[label, g]))
        expected = CLASS_WEIGHT * (features[i] - bench.prototypes.classes[label]).norm()
        expected += GROUP_WEIGHT * (features[i] - bench.prototypes.groups[label, nearest]).norm()
        assert energies[i].item() == pytest.approx(expected.item(), abs=1e-12)


def test_energy_at_a_prototype_is_zero_with_a_finite_gradient(bench: Bench) -> None:
    features = bench.prototypes.classes[:1].clone().requires_grad_()
    value = HierarchicalEnergy(bench.prototypes, class_weight=1.0, group_weight=0.0)(features, torch.tensor([0]))
    value.sum().backward()
    assert value.item() == 0
    assert torch.isfinite(features.grad).all()
