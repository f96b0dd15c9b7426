"""Deviation guidance, against automatic and finite differences of PyTorch's cosine similarity, and counting."""

import numpy as np
import pytest
import torch
from bench import METHODS, assert_is_gradient
from rivals import RealBench, planned, rival
from torch.nn import functional as F

from distdiff.generator.latent_diffusion import Posterior
from distdiff.guidance.real import RealLatents


@pytest.fixture(scope="module")
def bench() -> RealBench:
    return RealBench()


def test_a_step_goes_away_from_the_most_similar_image_of_the_memory(bench: RealBench) -> None:
    """Oracle: finite differences of PyTorch's cosine similarity to the image that it finds nearest."""
    method = bench.rival("deviation", rho=0.024, start_step=4)
    memory = method.aims(bench.planned, seed=0).values
    assert memory.shape == (3, 2, *bench.latents.shape[1:])
    found = F.cosine_similarity(bench.latents.flatten(1)[:, None], memory.flatten(2), dim=2)
    nearest = memory[torch.arange(3), found.argmax(1)].flatten(1)
    guided, _ = bench.step(method)
    plain, _ = bench.step(METHODS["none"]())
    squares = bench.latents.square().sum((1, 2, 3), keepdim=True)
    assert_is_gradient(
        (plain - guided) / (0.024 * squares), lambda z: F.cosine_similarity(z.flatten(1), nearest), bench.latents
    )


def test_published_strength_is_gamma_in_latents_of_4096_values() -> None:
    """Oracle: automatic differentiation of γ cos(z, m), γ = 100, at a z with ‖z‖² = 4096."""
    drawn = torch.Generator().manual_seed(0)
    z, m = torch.randn(2, 1, 4, 32, 32, generator=drawn, dtype=torch.float64)
    z = (z * 64 / z.norm()).requires_grad_()
    (slope,) = torch.autograd.grad(100 * F.cosine_similarity(z.flatten(1), m.flatten(1)).sum(), z)
    method = rival("deviation", None, None, rho=100 / 4096)

    class Batch:
        aims = m[:, None]

    torch.testing.assert_close(method.rho * method.ascent(z.detach(), z.detach(), Batch), slope, atol=1e-10, rtol=0)


def test_the_memory_has_the_source_first_and_others_of_the_class_in_the_seeds_order() -> None:
    means = torch.randn(9, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    keys = list(map(str, range(9)))
    real = RealLatents(Posterior(means, means), np.array([0] * 6 + [1] * 3), keys)
    method = rival("deviation", None, real, memory_size=4)
    memory = method.memory(planned(0, 3, 0), seed=0)
    assert len(memory) == 4
    assert memory[0] == 3
    assert set(memory) < set(range(6))
    assert memory == method.memory(planned(0, 3, 7), seed=0)
    assert memory != method.memory(planned(0, 3, 0), seed=1)
    assert sorted(method.memory(planned(1, 7, 0), seed=0)) == [6, 7, 8]
    both = method.aims([planned(0, 3, 0), planned(1, 7, 0)], seed=0).values
    torch.testing.assert_close(both[0], means[memory])
    assert {tuple(one.flatten().tolist()) for one in both[1]} == {tuple(m.flatten().tolist()) for m in means[6:]}


def test_in_a_group_a_copy_also_keeps_away_from_the_copies_before_it_and_knows_none_after_it(bench: RealBench) -> None:
    """Oracle: cosine similarity to the earlier copies' clean latents; a copy of a smaller group is the same."""
    method = bench.rival("deviation", start_step=4, group_size=3)
    batch = bench.batch(method)
    batch.aims = batch.aims[[0, 0, 0]] * 0 + torch.randn(1, generator=torch.Generator().manual_seed(0)).double()
    clean = bench.latents.flip(0)  # so that the copies' clean latents are nearest
    whole = method.ascent(bench.latents, clean, batch)
    units = F.normalize(bench.latents.flatten(1), dim=1)
    expected = torch.stack([F.cosine_similarity(bench.latents[2].flatten(), clean[i].flatten(), dim=0) for i in (0, 1)])
    nearest = F.normalize(clean[expected.argmax()].flatten(), dim=0)
    away = nearest - (nearest @ units[2]) * units[2]
    torch.testing.assert_close(whole[2].flatten(), bench.latents[2].norm() * away, atol=1e-9, rtol=0)
    batch.aims = batch.aims[:2]
    torch.testing.assert_close(method.ascent(bench.latents[:2], clean[:2], batch), whole[:2], atol=1e-12, rtol=0)
