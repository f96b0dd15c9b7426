"""Particle guidance, against the published kernel on fixed tensors and finite differences."""

import math

import pytest
import torch
from bench import METHODS, directional
from rivals import RealBench

from distdiff.guidance.particles import repulsion


@pytest.fixture(scope="module")
def bench() -> RealBench:
    return RealBench(batch=4)


def fixed(count: int) -> torch.Tensor:
    return torch.randn(count, 4, 5, 5, generator=torch.Generator().manual_seed(count), dtype=torch.float64)


def width(latents: torch.Tensor, i: int) -> float:
    """The published bandwidth, the squared median distance divided by log n (of the paper, for n copies)."""
    apart = sorted((latents[i] - latents[j]).norm().item() for j in range(len(latents)) if j != i)
    return apart[(len(apart) - 1) // 2] ** 2 / math.log(len(latents))


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_force_is_the_slope_of_the_published_kernel(count: int) -> None:
    """Oracle: finite differences of −Σ_j exp(−‖z_i − z_j‖² / h_i), written out, with z_j and h_i fixed."""
    latents = fixed(count)
    force = repulsion(latents)
    for i in range(count):
        h = width(latents, i)

        def potential(z: torch.Tensor, i: int = i, h: float = h) -> torch.Tensor:
            others = (latents[j] for j in range(count) if j != i)
            return -sum(torch.exp(-(z - other).square().sum((1, 2, 3)) / h) for other in others)

        direction = fixed(7)[:1]
        expected = directional(potential, latents[[i]], direction)
        torch.testing.assert_close((force[[i]] * direction).sum((1, 2, 3)), expected, rtol=1e-6, atol=1e-12)


def test_a_step_moves_the_noise_prediction_by_rho_times_the_latents_length(bench: RealBench) -> None:
    """Oracle: the published ε̂ − g in DDIM's formula, with g of length ρ ‖z‖."""
    scheduler = bench.batch(METHODS["none"]()).denoiser.scheduler
    now = scheduler.timesteps[bench.index]
    before, after = scheduler.alphas_cumprod[now].double(), scheduler.alphas_cumprod[now - 1000 // 8].double()
    force = repulsion(bench.latents)
    lengths = bench.latents.flatten(1).norm(dim=1) / force.flatten(1).norm(dim=1)
    epsilon = (bench.latents - before.sqrt() * bench.clean(bench.latents)) / (1 - before).sqrt()
    epsilon = epsilon - 0.1 * lengths.view(-1, 1, 1, 1) * force
    moved = (bench.latents - (1 - before).sqrt() * epsilon) / before.sqrt()
    guided, _ = bench.step(bench.rival("particles", rho=0.1, start_step=4, min_sigma=0))
    torch.testing.assert_close(guided, after.sqrt() * moved + (1 - after).sqrt() * epsilon, atol=1e-6, rtol=0)


def test_a_broken_copy_spoils_no_other(bench: RealBench) -> None:
    method = bench.rival("particles", rho=0.1, start_step=4, min_sigma=0)
    whole, batch = bench.latents.clone(), bench.batch(method)
    whole[1] = torch.nan
    guided, _ = method.step(whole, bench.index, batch)
    assert batch.guided.tolist() == [True, False, True, True]
    assert guided.flatten(1).isfinite().all(1).tolist() == [True, False, True, True]


def test_copies_in_another_order_are_the_same_copies_and_one_alone_is_unguided(bench: RealBench) -> None:
    order = torch.tensor([2, 0, 3, 1])
    method = bench.rival("particles", start_step=4, min_sigma=0)
    together, _ = bench.step(method)
    shuffled, _ = bench.step(method, order)
    torch.testing.assert_close(shuffled, together[order], atol=1e-8, rtol=0)
    plain, _ = bench.step(METHODS["none"]())
    assert ((together - plain).abs().amax((1, 2, 3)) > 1e-4).all()
    torch.testing.assert_close(bench.step(method, order[:1])[0], plain[order[:1]], atol=1e-8, rtol=0)


def test_below_the_least_noise_level_nothing_is_guided(bench: RealBench) -> None:
    levels = bench.batch(METHODS["none"]()).denoiser.levels
    ratio = float(levels.noise[bench.index] / levels.signal[bench.index])
    plain, _ = bench.step(METHODS["none"]())
    for least, moves in ((0.99 * ratio, True), (1.01 * ratio, False)):
        guided, _ = bench.step(bench.rival("particles", start_step=4, min_sigma=least))
        assert bool((guided - plain).abs().max() > 1e-4) == moves


def test_equal_copies_stay_finite() -> None:
    force = repulsion(fixed(1).expand(3, -1, -1, -1))
    assert (force == 0).all()
