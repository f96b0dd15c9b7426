"""ρ and ε mean the same under every scheduler: they are measured in latents of unit variance."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from bench import METHODS, STEPS, Bench, assert_is_gradient, directional
from diffusers import DDIMScheduler, StableDiffusionPipeline
from pipelines import small_pipeline, small_sd3_pipeline

from distdiff.guidance.base import Guidance

ONLY_RHO = {"direct": {}, "freedom": {"recurrence": 1}, "tfg": {"recurrence": 1, "mu": 0.0, "gamma": 0.0}}


@dataclass
class OwnLatents:
    """A bench's guided step in the scheduler's own latents z, where nothing is scaled, as formulas of its σ alone.

    `scale` and `next_scale` are the standard deviations of z_t and z_{t−1} for clean latents of unit variance, `next_signal`
    is what a clean latent is multiplied with in z_{t−1}.
    """

    bench: Bench
    clean: Callable[[torch.Tensor], torch.Tensor]  # ẑ0 of z_t
    scale: float
    next_scale: float
    next_signal: float

    @property
    def latents(self) -> torch.Tensor:
        return self.bench.latents * self.scale

    @torch.no_grad()
    def energy(self, latents: torch.Tensor) -> torch.Tensor:
        return self.bench.clean_energy(self.clean(latents))

    def moves(self, name: str, **options: object) -> torch.Tensor:
        """How far z_{t−1} moves by guidance, (B, C, h, w)."""
        guided, _ = self.bench.step(METHODS[name](**options))
        plain, _ = self.bench.step(METHODS["none"]())
        return (guided - plain) * self.next_scale


def own_latents_of_euler() -> OwnLatents:
    """z = ẑ0 + σ ε (Karras et al., 2022); the network takes z / √(1 + σ²) and predicts ε."""
    bench = Bench(scheduler="euler")
    denoiser = bench.batch(METHODS["none"]()).denoiser
    sigma, following = denoiser.scheduler.sigmas[bench.index : bench.index + 2].tolist()
    timestep = denoiser.scheduler.timesteps[bench.index]

    def clean(latents: torch.Tensor) -> torch.Tensor:
        return latents - sigma * denoiser.model(latents / (1 + sigma**2) ** 0.5, timestep)

    return OwnLatents(bench, clean, (1 + sigma**2) ** 0.5, (1 + following**2) ** 0.5, 1.0)


def own_latents_of_flow() -> OwnLatents:
    """z = (1 − σ) ẑ0 + σ ε; the network takes z and predicts ε − ẑ0 (Esser et al., 2024)."""
    bench = Bench(pipeline=small_sd3_pipeline)
    denoiser = bench.batch(METHODS["none"]()).denoiser
    sigma, following = denoiser.scheduler.sigmas[bench.index : bench.index + 2].tolist()
    timestep = denoiser.scheduler.timesteps[bench.index]

    def clean(latents: torch.Tensor) -> torch.Tensor:
        return latents - sigma * denoiser.model(latents, timestep)

    scales = [((1 - level) ** 2 + level**2) ** 0.5 for level in (sigma, following)]
    return OwnLatents(bench, clean, *scales, 1 - following)


@pytest.fixture(scope="module", params=["euler", "flow"])
def own(request: pytest.FixtureRequest) -> OwnLatents:
    return {"euler": own_latents_of_euler, "flow": own_latents_of_flow}[request.param]()


@pytest.mark.parametrize("name", ONLY_RHO)
def test_latent_guidance_moves_by_rho_at_unit_variance(own: OwnLatents, name: str) -> None:
    """With u = z / s, u_{t−1} moves by −ρ ∇_{u_t} E, hence z_{t−1} by −ρ s_{t−1} s_t ∇_{z_t} E; finite differences in z."""
    moves = own.moves(name, rho=2.0, **ONLY_RHO[name])
    assert_is_gradient(-moves / (2.0 * own.next_scale * own.scale), own.energy, own.latents)


@pytest.mark.parametrize("name", ONLY_RHO)
def test_a_normalised_gradient_has_length_one_at_unit_variance(own: OwnLatents, name: str) -> None:
    moves = own.moves(name, rho=0.7, gradient_norm="unit", **ONLY_RHO[name])
    length = moves.flatten(1).norm(dim=1) / own.next_scale
    torch.testing.assert_close(length, torch.full_like(length, 0.7), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [("mpgd", {"rho": 2.0}), ("tfg", {"rho": 0.0, "mu": 2.0, "iterations": 1, "recurrence": 1, "gamma": 0.0})],
)
def test_clean_latent_guidance_needs_no_scale(own: OwnLatents, name: str, options: dict[str, float]) -> None:
    """ẑ0 moves by −ρ ∇_{ẑ0} E, and z_{t−1}, with the predicted noise kept, by its signal level times that."""
    moves = own.moves(name, **options)
    assert_is_gradient(-moves / (2.0 * own.next_signal), own.bench.clean_energy, own.clean(own.latents))


@pytest.mark.parametrize("epsilon", [1e9, 0.008])
def test_transform_shifts_and_clamps_at_unit_variance(own: OwnLatents, epsilon: float) -> None:
    """u' = u ⊙ (1 + ω) + b within ±ε, hence z' = z ⊙ (1 + ω) + s b within ±ε s; finite differences in every ω and b."""
    rho = 0.5
    zeros = torch.zeros(3, 4, 1, 1, dtype=torch.float64)
    gradients = {"scale": torch.zeros_like(zeros), "shift": torch.zeros_like(zeros)}
    for channel in range(4):
        direction = zeros.clone()
        direction[:, channel] = 1
        slope = directional(lambda omega: own.energy(own.latents * (1 + omega)), zeros, direction)
        gradients["scale"][:, channel, 0, 0] = slope
        slope = directional(lambda b: own.energy(own.latents + own.scale * b), zeros, direction)
        gradients["shift"][:, channel, 0, 0] = slope
    expected = -rho * (own.latents * gradients["scale"] + own.scale * gradients["shift"])
    bound = (expected.abs() > epsilon * own.scale).double().mean().item()
    assert 0.2 < bound < 0.8 or epsilon == 1e9  # the ball holds some entries and leaves others
    expected = expected.clamp(-epsilon * own.scale, epsilon * own.scale)

    method = METHODS["transform"](rho=rho, epsilon=epsilon, period=1)
    moved, _ = method.transformed(own.bench.latents, zeros, zeros, own.bench.index, own.bench.batch(method))
    torch.testing.assert_close(moved * own.scale - own.latents, expected, rtol=1e-6, atol=1e-10)


class SignGuidance(Guidance):
    """A user's own method, as in conf/guidance/README.md; it knows of no scale."""

    def __init__(self, *, rho: float, **keys: object) -> None:
        super().__init__(**keys)
        self.rho = rho

    def step(self, latents, index, batch):
        at = self.latent_gradient(latents, index, batch)
        following = batch.denoiser.advance(latents, at.output, index)
        return following - self.rho * at.gradient.sign(), at.values


def final_latents(bench: Bench, method: Guidance) -> torch.Tensor:
    """The end of the way from a noisy latent through all steps, those of the method's period guided."""
    batch = bench.batch(method)
    clean, noise = torch.randn(2, *bench.latents.shape, generator=torch.Generator().manual_seed(7)).double()
    latents = batch.denoiser.add_noise(clean, noise, batch.schedule.first)
    for index in range(batch.schedule.first, STEPS):
        if index in method.guided_steps(batch.schedule):
            latents, _ = method.step(latents, index, batch)
        else:
            with torch.no_grad():
                latents = batch.denoiser.advance(latents, batch.denoiser.predict(latents, index), index)
    return latents


@pytest.fixture(scope="module")
def benches() -> dict[str, Bench]:
    """The same weights, prompts and energy under two schedulers that take the same steps at different scales."""

    def pipeline() -> StableDiffusionPipeline:
        made = small_pipeline()  # whose timesteps each scheduler would space by its own default
        made.scheduler = DDIMScheduler.from_config(made.scheduler.config, timestep_spacing="leading")
        return made

    return {scheduler: Bench(pipeline=pipeline, scheduler=scheduler) for scheduler in ("ddim", "euler")}


@pytest.mark.parametrize(
    ("name", "options", "without"),
    [
        ("direct", {}, {"rho": 0.0}),
        ("direct", {"gradient_norm": "unit"}, {"rho": 0.0}),
        ("freedom", {}, {"rho": 1e-12}),  # travels back in time, as it does not at 0
        ("mpgd", {}, {"rho": 0.0}),
        ("tfg", {"recurrence": 1}, {"rho": 0.0, "mu": 0.0}),
        ("tfg", {"mu": 0.0}, {"rho": 1e-12, "mu": 0.0}),
        ("transform", {"rho": 0.5, "epsilon": 1e9}, {"epsilon": 0.0}),
        ("transform", {"rho": 0.5, "epsilon": 0.005}, {"epsilon": 0.0}),
        ("transform_random", {"rho": 0.5, "epsilon": 1e9}, {"epsilon": 0.0}),
        ("transform_random", {"rho": 10.0, "epsilon": 0.2}, {"epsilon": 0.0}),
        ("transform_official", {"rho": 10.0, "epsilon": 0.2}, {"epsilon": 0.0}),
        ("a user's own", {"rho": 0.02, "period": 2}, {"rho": 0.0}),
    ],
)
def test_guidance_moves_latents_as_far_under_euler_as_under_ddim(benches, name, options, without) -> None:
    """Within 1 %, each sample's final latents (DDIM ends at a little noise, Euler at none)."""
    moves = {}
    for scheduler, bench in benches.items():
        make = functools.partial(METHODS.get(name, SignGuidance), **options)
        guided, plain = (final_latents(bench, make(**changed)) for changed in ({}, without))
        moves[scheduler] = (guided - plain).flatten(1).norm(dim=1)
    assert (moves["ddim"] > 1e-2).all()
    torch.testing.assert_close(moves["euler"], moves["ddim"], rtol=0.01, atol=0)
