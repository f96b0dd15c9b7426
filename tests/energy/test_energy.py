"""The hierarchical energy, against its definition."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from bench import CLASS_WEIGHT, GROUP_WEIGHT, GROUPS, Bench
from conftest import compose
from torch.nn import functional as F

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.energy.base import Energy
from distdiff.energy.config import needs_of
from distdiff.energy.exemplar import ExemplarEnergy
from distdiff.energy.hierarchical import HierarchicalEnergy
from distdiff.errors import UserError
from distdiff.expansion.assembly import Assembly
from distdiff.prototypes.exemplars import Exemplars
from distdiff.prototypes.hierarchical import fit_prototypes


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


def real(labels: list[int], keys: list[str], dim: int = 6) -> Exemplars:
    features = torch.randn(len(labels), dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return Exemplars(F.normalize(features, dim=-1), np.array(labels), tuple(keys))


@dataclass(frozen=True)
class Copy:
    label: int
    class_name: str
    source: str
    copy: int


def test_the_exemplar_energy_is_the_distance_to_one_image_and_its_gradient_a_unit_vector_towards_it() -> None:
    """Oracle: the norm written out; ∇ ‖f − e‖ = (f − e) / ‖f − e‖, and finite differences."""
    energy, targets = ExemplarEnergy(real([0, 0, 1], ["a", "b", "c"])), torch.tensor([1, 2])
    features = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    values = energy(features, targets)
    apart = features - energy.features[targets]
    torch.testing.assert_close(values, (apart**2).sum(1).sqrt())
    (gradient,) = torch.autograd.grad(values.sum(), features)
    torch.testing.assert_close(gradient, apart / values[:, None])
    step, direction = 1e-6, torch.randn(2, 6, dtype=torch.float64)
    moved = [energy(features + sign * step * direction, targets) for sign in (1, -1)]
    torch.testing.assert_close((gradient * direction).sum(1), (moved[0] - moved[1]) / (2 * step), rtol=1e-6, atol=1e-9)


def test_an_exemplar_is_of_the_class_and_never_the_copys_own_source_unless_there_is_no_other() -> None:
    exemplars = real([0, 0, 0, 1], ["a", "b", "c", "a"])
    energy = ExemplarEnergy(exemplars)
    copies = [Copy(0, "cat", key, copy) for key in "abc" for copy in range(30)]
    numbers = energy.targets(copies, seed=0).tolist()
    assert {exemplars.labels[number] for number in numbers} == {0}
    assert all(exemplars.keys[number] != copy.source for number, copy in zip(numbers, copies, strict=True))
    for key in "abc":  # copies spread over all others
        drawn = [number for number, copy in zip(numbers, copies, strict=True) if copy.source == key]
        assert min(np.bincount(drawn, minlength=3)[[i for i in range(3) if exemplars.keys[i] != key]]) >= 5
    assert energy.targets([Copy(1, "dog", "a", 0)], seed=0).tolist() == [3]
    assert energy.columns(torch.zeros(1, 6), torch.tensor([2])) == {"exemplar": ["c"]}


def test_an_exemplar_depends_on_the_seed_and_the_copy_alone() -> None:
    energy = ExemplarEnergy(real([0] * 9, list("abcdefghi")))
    copies = [Copy(0, "cat", key, copy) for key in "abc" for copy in range(10)]
    together = energy.targets(copies, seed=0)
    alone = torch.cat([energy.targets([copy], seed=0) for copy in reversed(copies)]).flip(0)
    assert torch.equal(together, alone)
    assert not torch.equal(together, energy.targets(copies, seed=1))


@pytest.mark.parametrize(("level", "weights"), [("class", (0.7, 0.0)), ("group", (0.0, 1.3))])
def test_a_level_without_prototypes_is_left_out_of_the_energy(level: str, weights: tuple[float, float]) -> None:
    features = F.normalize(torch.randn(40, 6, dtype=torch.float64), dim=-1)
    labels = np.arange(40) % 3
    both = fit_prototypes(features, labels, 3, 2, "average")
    one = fit_prototypes(features, labels, 3, 2, "average", class_level=level == "class", group_level=level == "group")
    shown, targets = torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    expected = HierarchicalEnergy(both, class_weight=weights[0], group_weight=weights[1])(shown, targets)
    energy = HierarchicalEnergy(one, class_weight=0.7, group_weight=1.3)
    torch.testing.assert_close(energy(shown, targets), expected)
    assert ("group" in energy.columns(shown, targets)) == (level == "group")


def test_an_expansion_brings_what_its_energy_needs_and_nothing_else(small_run, image_folder, tmp_path: Path) -> None:
    given = [*small_run, "dataset=imagefolder", f"dataset.root={image_folder}", "guidance=direct", "expansion.factor=3"]
    stages = tmp_path / "outputs" / "cache"
    found = {}
    for energy in ("exemplar", "hierarchical"):
        config = compose("expand", [*given, f"energy={energy}"])
        cache = StageCache(config.paths.cache_dir)
        data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
        job = Assembly(config, cache).job(data, config.seed)
        job.run("test")
        found[energy] = pyarrow.parquet.read_table(job.path / "metadata.parquet").to_pylist()
        assert (stages / "exemplars").exists()
        assert (stages / "prototypes").exists() == (energy == "hierarchical")
    assert all(row["exemplar"] != row["source"] for row in found["exemplar"])
    assert len({row["exemplar"] for row in found["exemplar"]}) > 2
    assert {row["file_name"] for row in found["exemplar"]} == {row["file_name"] for row in found["hierarchical"]}
    assert all(row["gradient_finite"] for rows in found.values() for row in rows)


def test_an_energy_that_needs_what_cannot_be_had_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"^energy=mine needs 'images', which cannot be had: one of prototypes, exemplars$"
    ):
        needs_of({"_target_": f"{__name__}.NeedsImages", "name": "mine"})


class NeedsImages(Energy):
    def __init__(self, images: object) -> None:
        super().__init__()
