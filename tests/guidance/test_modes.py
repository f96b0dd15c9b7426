"""Mode guidance, against the published update on fixed tensors, blobs whose means are known, and counting."""

from collections import Counter

import numpy as np
import pytest
import torch
from bench import METHODS
from pipelines import FAMILIES
from rivals import RealBench, planned, rival

from distdiff.generator.latent_diffusion import LatentDiffusion, Posterior
from distdiff.guidance.real import RealLatents


@pytest.fixture(scope="module")
def bench() -> RealBench:
    return RealBench()


def of(means: torch.Tensor, labels: list[int]) -> RealLatents:
    return RealLatents(Posterior(means, torch.zeros_like(means)), np.array(labels), list(map(str, range(len(labels)))))


def ddim(bench: RealBench) -> tuple[float, float, float, float]:
    """√ᾱ and √(1 − ᾱ) before and after the bench's step, from the tables of diffusers' scheduler."""
    scheduler = bench.batch(METHODS["none"]()).denoiser.scheduler
    now = scheduler.timesteps[bench.index]
    before, after = scheduler.alphas_cumprod[now].double(), scheduler.alphas_cumprod[now - 1000 // 8].double()
    return before.sqrt(), (1 - before).sqrt(), after.sqrt(), (1 - after).sqrt()


def test_a_step_is_ddim_with_the_published_noise_prediction(bench: RealBench) -> None:
    """Oracle: ε̂ − √(1 − ᾱ) λ (m − ẑ0) in DDIM's formula, written out; and ẑ0 has moved by λ (1 − ᾱ) / √ᾱ (m − ẑ0)."""
    method = bench.rival("modes", rho=0.1, start_step=4)
    signal, noise, next_signal, next_noise = ddim(bench)
    clean, mode = bench.clean(bench.latents), method.aims(bench.planned, seed=0).values
    epsilon = (bench.latents - signal * clean) / noise - noise * 0.1 * (mode - clean)
    moved = (bench.latents - noise * epsilon) / signal
    guided, _ = bench.step(method)
    torch.testing.assert_close(guided, next_signal * moved + next_noise * epsilon, atol=1e-6, rtol=0)
    torch.testing.assert_close(moved - clean, 0.1 * noise**2 / signal * (mode - clean), atol=1e-6, rtol=0)


def test_the_clean_latent_never_moves_beyond_the_mode(bench: RealBench) -> None:
    method = bench.rival("modes", rho=1e6, start_step=4)
    signal, noise, next_signal, next_noise = ddim(bench)
    mode = method.aims(bench.planned, seed=0).values
    expected = next_signal * mode + next_noise * (bench.latents - signal * mode) / noise
    torch.testing.assert_close(bench.step(method)[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("family", "scheduler"), [("sd", "ddim"), ("sd", "euler"), ("sd_v", "unipc"), ("sd3", "flow_euler")]
)
def test_an_output_and_the_clean_latent_that_it_implies_are_each_others_inverse(family: str, scheduler: str) -> None:
    generator = LatentDiffusion(FAMILIES[family]().to(torch.float64), 4, 1.0, 32, scheduler)
    denoiser = generator.denoiser(generator.embed(["a"]).select(torch.tensor([0])))
    drawn = torch.Generator().manual_seed(0)
    latents, output = torch.randn(2, 1, *generator.latent_shape, generator=drawn, dtype=torch.float64)
    for index in range(1, 4):
        again = denoiser.output_for(latents, denoiser.clean(latents, output, index), index)
        torch.testing.assert_close(again, output, atol=1e-9, rtol=0)


def test_modes_are_the_means_of_blobs_the_largest_first() -> None:
    """Oracle: three far blobs of one, three and two images, whose means are known."""
    drawn = torch.Generator().manual_seed(1)
    places = [0, 1, 1, 1, 2, 2]
    means = torch.randn(6, 2, 3, 3, generator=drawn) * 0.01 + 10 * torch.tensor(places).view(6, 1, 1, 1)
    modes = rival("modes", None, of(means, [0] * 6), num_modes=3).modes(planned(0, 0, 0), seed=0)
    expected = torch.stack([means[[i for i, at in enumerate(places) if at == place]].mean(0) for place in (1, 2, 0)])
    torch.testing.assert_close(modes, expected, atol=1e-5, rtol=0)


def test_a_class_with_few_images_has_these_as_its_modes_and_copies_spread_over_all() -> None:
    means = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    method = rival("modes", None, of(means, [0, 0, 0, 1]))
    aims = method.aims([planned(0, source, copy) for source in range(3) for copy in range(4)], seed=0)
    assert Counter(aims.columns["guidance_mode"]) == {0: 4, 1: 4, 2: 4}
    distances = torch.cdist(method.modes(planned(0, 0, 0), 0).flatten(1), means[:3].flatten(1))
    assert sorted(distances.argmin(1).tolist()) == [0, 1, 2]
    assert distances.amin(1).max() < 1e-5
    alone = method.aims([planned(0, 1, 2)], seed=0)
    torch.testing.assert_close(alone.values[0], aims.values[6], atol=0, rtol=0)


@pytest.mark.filterwarnings("error")
def test_equal_images_are_one_mode() -> None:
    means = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(1))[[0, 1, 1, 1]]
    method = rival("modes", None, of(means, [0] * 4))
    assert len(method.modes(planned(0, 0, 0), 0)) == 2


def test_half_of_the_steps_that_run_are_guided_as_published_and_without_a_backward_pass(bench: RealBench) -> None:
    method = rival("modes", None, None)
    assert list(method.guided_steps(method.schedule(50, 1.0))) == list(range(25))  # published: stop at 25 of 50
    assert list(method.guided_steps(method.schedule(50, 0.7))) == list(range(15, 32))
    seen = []
    hook = bench.generator.network.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    for name in ("modes", "deviation", "particles"):
        bench.step(bench.rival(name, start_step=4))
    hook.remove()
    assert seen == [False] * 3
