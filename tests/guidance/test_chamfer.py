"""Chamfer guidance, against SciPy's distances, finite differences and counting."""

from collections import Counter

import numpy as np
import pytest
import torch
from bench import METHODS, directional
from rivals import RealBench, exemplars, planned, rival
from scipy.spatial.distance import cdist
from torch.nn import functional as F

from distdiff.guidance.batch import GuidedBatch


@pytest.fixture(scope="module")
def bench() -> RealBench:
    return RealBench()


def unit(count: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(drawn, dim=-1)


def with_aims(method, images) -> GuidedBatch:
    batch = object.__new__(GuidedBatch)
    batch.aims = method.aims(images, seed=0).values
    return batch


def test_alone_an_image_is_as_far_as_its_nearest_real_image_and_its_planned_one() -> None:
    """Oracle: SciPy's squared distances; five real images of class 0 and two of class 1."""
    real = exemplars(unit(7, seed=1), [0, 0, 0, 0, 0, 1, 1])
    images = [planned(0, 0, 0), planned(0, 3, 1), planned(1, 5, 0)]
    method = rival("chamfer", real, fidelity_weight=0.7, coverage_weight=1.3)
    features = unit(3, seed=2)
    found = method.objective(features, with_aims(method, images))
    apart = cdist(features.numpy(), real.features.numpy(), "sqeuclidean")
    own = [range(5), range(5), range(5, 7)]
    aims = [method.exemplar(image, 0) for image in images]
    expected = [0.7 * min(apart[i, j] for j in own[i]) + 1.3 * apart[i, aims[i]] for i in range(3)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_a_group_has_the_chamfer_distance_of_the_paper() -> None:
    """Oracle: mean_x min_y + mean_y min_x of SciPy's squared distances, times the number of images."""
    real = exemplars(unit(5, seed=1), [0] * 5)
    images = [planned(0, 0, copy) for copy in range(3)]
    method = rival("chamfer", real, group_size=3)
    features = unit(3, seed=2)
    found = method.objective(features, with_aims(method, images))
    apart = cdist(features.numpy(), real.features.numpy(), "sqeuclidean")
    assert found.sum().item() == pytest.approx(3 * (apart.min(1).mean() + apart.min(0).mean()), rel=1e-12)


def test_a_step_has_the_length_of_rho_and_goes_down_the_slope(bench: RealBench) -> None:
    """Oracle: finite differences of the distance; DDIM's formula for a moved z_t with the old noise prediction."""
    method = bench.rival("chamfer", rho=0.05, start_step=4)
    batch = bench.batch(method)
    scheduler = batch.denoiser.scheduler
    now = scheduler.timesteps[bench.index]
    ratio = (scheduler.alphas_cumprod[now - 1000 // 8] / scheduler.alphas_cumprod[now]).sqrt()
    guided, _ = bench.step(method)
    plain, _ = bench.step(METHODS["none"]())
    move = (guided - plain) / ratio
    lengths = bench.latents.flatten(1).norm(dim=1)
    torch.testing.assert_close(move.flatten(1).norm(dim=1), 0.05 * lengths, rtol=1e-6, atol=0)

    def objective(latents: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return method.objective(batch.raw_features(bench.clean(latents)), batch)

    slopes = []
    for seed in range(3):
        drawn = torch.Generator().manual_seed(seed)
        direction = torch.randn(bench.latents.shape, generator=drawn, dtype=torch.float64)
        down = -(move * direction).flatten(1).sum(1)
        slopes.append(directional(objective, bench.latents, direction) / down)
    assert (slopes[0] > 0).all()
    for other in slopes[1:]:
        torch.testing.assert_close(other, slopes[0], rtol=1e-4, atol=0)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_each_copy_of_a_class_covers_all_its_images_and_never_its_own(count: int) -> None:
    real = exemplars(unit(count, seed=1), [0] * count)
    method = rival("chamfer", real)
    for copy in range(2 * count):
        aims = [method.exemplar(planned(0, source, copy), seed=3) for source in range(count)]
        assert sorted(aims) == list(range(count))
        assert all(aim != source for source, aim in enumerate(aims))
    of_one = [method.exemplar(planned(0, 0, copy), seed=3) for copy in range(count - 1)]
    assert len(set(of_one)) == count - 1


def test_a_class_of_one_image_has_itself_and_a_large_class_is_covered_evenly_by_those_chosen() -> None:
    alone = rival("chamfer", exemplars(unit(1, seed=1), [0]))
    assert alone.exemplar(planned(0, 0, 5), seed=0) == 0
    method = rival("chamfer", exemplars(unit(40, seed=1), [0] * 40), num_exemplars=8)
    counts = Counter(method.exemplar(planned(0, source, copy), 0) for source in range(40) for copy in range(7))
    assert len(counts) == 8
    assert max(counts.values()) - min(counts.values()) <= 8
    assert not any(method.exemplar(planned(0, s, c), 0) == s for s in range(40) for c in range(7))
    single = rival("chamfer", exemplars(unit(3, seed=1), [0] * 3), num_exemplars=1)
    assert not any(single.exemplar(planned(0, source, copy), 0) == source for source in range(3) for copy in range(3))


def test_sources_that_are_not_among_the_real_images_are_spread_over_all_of_them() -> None:
    method = rival("chamfer", exemplars(unit(4, seed=1), [0] * 4))
    counts = Counter(method.exemplar(planned(0, source, 0), seed=0) for source in range(100, 200))
    assert len(counts) == 4
    assert min(counts.values()) > 10


def test_the_plan_depends_on_the_seed_and_the_copy_alone() -> None:
    method = rival("chamfer", exemplars(unit(9, seed=1), [0] * 9))
    images = [planned(0, source, copy) for source in range(9) for copy in range(4)]
    together = method.aims(images, seed=0)
    assert torch.equal(together.values[[5]], method.aims([images[5]], seed=0).values)
    assert not torch.equal(together.values, method.aims(images, seed=1).values)
    assert together.columns["guidance_exemplar"] == [str(number) for number in together.values[:, 0].tolist()]


@pytest.mark.parametrize("broken", [[1], [0, 2], [0, 1, 2]])
def test_a_broken_copy_takes_no_real_image_from_its_group(broken: list[int]) -> None:
    real = exemplars(unit(5, seed=1), [0] * 5)
    images = [planned(0, 0, copy) for copy in range(3)]
    method = rival("chamfer", real, group_size=3)
    features = unit(3, seed=2)
    features[broken] = torch.nan
    features.requires_grad_()
    found = method.objective(features, with_aims(method, images))
    whole = [place for place in range(3) if place not in broken]
    assert found[broken].isnan().all()
    if whole:  # as if the others alone were the group
        alone = unit(3, seed=2)[whole].requires_grad_()
        expected = method.objective(alone, with_aims(method, [images[place] for place in whole]))
        torch.testing.assert_close(found[whole], expected, atol=1e-12, rtol=0)
        slopes = [torch.autograd.grad(values.sum(), at)[0] for values, at in ((found, features), (expected, alone))]
        torch.testing.assert_close(slopes[0][whole], slopes[1], atol=1e-12, rtol=0)
