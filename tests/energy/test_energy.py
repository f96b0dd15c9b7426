"""The hierarchical energy, against its definition."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from bench import CLASS_WEIGHT, GROUP_WEIGHT, GROUPS, Bench
from conftest import compose
from torch import nn
from torch.nn import functional as F

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.energy.base import Energy
from distdiff.energy.config import needs_of
from distdiff.energy.exemplar import ExemplarEnergy
from distdiff.energy.hierarchical import HierarchicalEnergy
from distdiff.energy.margin import MarginEnergy
from distdiff.errors import UserError
from distdiff.expansion.assembly import Assembly
from distdiff.prototypes.exemplars import Exemplars
from distdiff.prototypes.hierarchical import Prototypes, fit_prototypes


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


@pytest.mark.parametrize("margin", [1e-12, 0.3])
def test_the_margin_energy_is_the_triplet_loss_with_the_nearest_other_class(margin: float) -> None:
    """Oracle: torch's triplet loss for each level, finite differences, and no gradient where the margin is kept."""
    weights = {"class_weight": CLASS_WEIGHT, "group_weight": GROUP_WEIGHT}
    generator, num, num_classes, dim = torch.Generator().manual_seed(1), 40, 4, 6
    classes = F.normalize(torch.randn(num_classes, dim, generator=generator, dtype=torch.float64), dim=-1)
    apart = torch.randn(num_classes, 3, dim, generator=generator, dtype=torch.float64)
    groups = F.normalize(classes[:, None] + 0.3 * apart, dim=-1)
    counts = torch.tensor([[2, 1, 0], [1, 1, 1], [3, 0, 0], [1, 2, 0]])
    prototypes = Prototypes(classes, groups * (counts > 0)[..., None], counts)
    energy = MarginEnergy(prototypes, **weights, margin=margin)
    labels = torch.randint(num_classes, (num,), generator=generator)
    features = classes[labels] + 0.5 * torch.randn(num, dim, generator=generator, dtype=torch.float64)
    features = F.normalize(features, dim=-1).requires_grad_()
    values = energy(features, labels)

    def expected(image: torch.Tensor, label: int) -> torch.Tensor:
        loss = nn.TripletMarginLoss(margin, eps=0)
        found = 0.0
        levels = [(CLASS_WEIGHT, [row[None] for row in prototypes.classes])]
        levels += [
            (GROUP_WEIGHT, [rows[kept] for rows, kept in zip(prototypes.groups, prototypes.present, strict=True)])
        ]
        for weight, of_class in levels:
            others = torch.cat([rows for other, rows in enumerate(of_class) if other != label])
            nearest = [rows[(rows - image).norm(dim=1).argmin()] for rows in (of_class[label], others)]
            found += weight * loss(image, *nearest)
        return found

    wanted = torch.stack([expected(*each) for each in zip(features, labels.tolist(), strict=True)])
    torch.testing.assert_close(values, wanted)
    assert 0 < int((values == 0).sum()) < num  # images on both sides
    (gradient,) = torch.autograd.grad(values.sum(), features)
    assert (gradient[values == 0] == 0).all()
    step, direction = 1e-7, torch.randn(features.shape, generator=generator, dtype=torch.float64)
    moved = [energy(features + sign * step * direction, labels) for sign in (1, -1)]
    torch.testing.assert_close((gradient * direction).sum(1), (moved[0] - moved[1]) / (2 * step), rtol=1e-5, atol=1e-6)


def test_the_margin_energy_of_one_class_is_refused(bench: Bench) -> None:
    one = replace(bench.prototypes, classes=bench.prototypes.classes[:1], groups=bench.prototypes.groups[:1])
    with pytest.raises(UserError, match="only one"):
        MarginEnergy(replace(one, counts=one.counts[:1]), class_weight=1.0, group_weight=1.0, margin=0.0)


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
