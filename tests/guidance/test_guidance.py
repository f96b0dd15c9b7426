"""The maths of guidance, against finite differences, closed forms and an independent transcription."""

import pytest
import torch
from bench import (
    CFG_SCALE,
    CLASS_WEIGHT,
    GROUP_WEIGHT,
    METHODS,
    STEPS,
    STRENGTH,
    Bench,
    assert_is_gradient,
    directional,
)
from torch.nn import functional as F


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def levels(bench: Bench) -> tuple[float, float, float, float]:
    """(√ᾱ, √(1 − ᾱ)) before and after the bench's step, from DDIM's own tables."""
    scheduler = bench.batch(METHODS["none"]()).denoiser.scheduler
    now = scheduler.timesteps[bench.index]
    before, after = scheduler.alphas_cumprod[now], scheduler.alphas_cumprod[now - 1000 // STEPS]
    return before.sqrt(), (1 - before).sqrt(), after.sqrt(), (1 - after).sqrt()


@pytest.mark.parametrize("name", ["direct", "freedom", "tfg"])
def test_latent_guidance_moves_by_rho_times_the_energys_gradient(bench: Bench, name: str) -> None:
    rho, alone = 2.0, {"recurrence": 1, "mu": 0.0, "gamma": 0.0}
    guided, _ = bench.step(METHODS[name](rho=rho, **({} if name == "direct" else alone)))
    plain, _ = bench.step(METHODS["none"]())
    assert_is_gradient((plain - guided) / rho, lambda z: bench.clean_energy(bench.clean(z)), bench.latents)


@pytest.mark.parametrize("name", ["mpgd", "tfg"])
def test_clean_latent_guidance_is_ddim_from_a_corrected_clean_latent(bench: Bench, name: str) -> None:
    """Oracle: finite differences for the gradient; for the step, DDIM's formula with ẑ0 corrected and ε kept."""
    strength = 2.0
    clean = bench.clean(bench.latents)
    signal, noise, next_signal, next_noise = levels(bench)
    epsilon = (bench.latents - signal * clean) / noise
    options = (
        {"rho": strength}
        if name == "mpgd"
        else {"rho": 0, "mu": strength, "iterations": 1, "recurrence": 1, "gamma": 0}
    )
    guided, _ = bench.step(METHODS[name](**options))
    corrected = (guided - next_noise * epsilon) / next_signal
    assert_is_gradient((clean - corrected) / strength, bench.clean_energy, clean)


def test_mean_guidance_takes_its_iterations_from_where_the_last_one_led(bench: Bench) -> None:
    """Oracle: the second of two steps of MPGD on the clean latent, each checked above."""
    one, _ = bench.step(METHODS["tfg"](rho=0, mu=1.0, iterations=1, recurrence=1, gamma=0))
    two, _ = bench.step(METHODS["tfg"](rho=0, mu=1.0, iterations=2, recurrence=1, gamma=0))
    plain, _ = bench.step(METHODS["none"]())
    *_, next_signal, _ = levels(bench)
    moved = bench.clean(bench.latents) + (one - plain) / next_signal
    assert_is_gradient((one - two) / next_signal, bench.clean_energy, moved)


def test_smoothed_energy_is_the_log_mean_of_its_samples(bench: Bench) -> None:
    """Oracle: −log mean exp(−E) over the drawn directions, written out, and its finite differences."""
    gamma, samples = 0.3, 2
    _, noise, *_ = levels(bench)
    drawn = [torch.stack([bench.noise(member, samples)[i] for member in range(3)]) for i in range(samples)]

    def smoothed(latents: torch.Tensor) -> torch.Tensor:
        clean = bench.clean(latents)
        energies = [bench.clean_energy(clean + gamma * noise * direction) for direction in drawn]
        return -torch.log(sum(torch.exp(-energy) for energy in energies) / samples)

    guided, _ = bench.step(METHODS["tfg"](rho=1.0, mu=0.0, recurrence=1, gamma=gamma, num_samples=samples))
    plain, _ = bench.step(METHODS["none"]())
    assert_is_gradient(plain - guided, smoothed, bench.latents)


def test_time_travel_is_the_forward_process_and_the_step_again(bench: Bench) -> None:
    """Oracle: DDPM's q(z_t | z_{t−1}) between two direct steps."""
    once, _ = bench.step(METHODS["direct"]())
    signal, _, next_signal, _ = levels(bench)
    ratio = signal**2 / next_signal**2
    noise = torch.stack([bench.noise(member)[0] for member in range(3)])
    back = ratio.sqrt() * once + (1 - ratio).sqrt() * noise
    expected, _ = bench.step(METHODS["direct"](), latents=back)
    travelled, _ = bench.step(METHODS["freedom"](recurrence=2))
    torch.testing.assert_close(travelled, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("name", "options", "as_tfg"),
    [
        ("direct", {}, {"rho": 2.0, "mu": 0.0, "gamma": 0.0, "recurrence": 1}),
        ("freedom", {"recurrence": 3}, {"rho": 2.0, "mu": 0.0, "gamma": 0.0, "recurrence": 3}),
        ("mpgd", {}, {"rho": 0.0, "mu": 2.0, "gamma": 0.0, "recurrence": 1, "iterations": 1}),
        ("none", {}, {"rho": 0.0, "mu": 0.0}),
    ],
)
@pytest.mark.parametrize("shared", [{}, {"rho_schedule": "increasing", "gradient_norm": "unit"}])
def test_tfg_contains_the_others(bench: Bench, name: str, options: dict, as_tfg: dict, shared: dict) -> None:
    expected, expected_energy = bench.step(METHODS[name](**options, **shared))
    ours, energy = bench.step(METHODS["tfg"](**as_tfg, **shared))
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(energy, expected_energy, atol=1e-12, rtol=0)


def rolled_out(bench: Bench, latents: torch.Tensor, period: int) -> torch.Tensor:
    """Mean energy (B,) of the clean latents along P steps of diffusers' DDIM from `latents`."""
    denoiser, energies = bench.batch(METHODS["none"]()).denoiser, []
    with torch.no_grad():
        for timestep in denoiser.scheduler.timesteps[bench.index : bench.index + period]:
            result = denoiser.scheduler.step(denoiser.model(latents, timestep), timestep, latents)
            energies.append(bench.clean_energy(result.pred_original_sample))
            latents = result.prev_sample
    return sum(energies) / period


def published_start(random: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """ω ~ U(0, 1) and b ~ N(0, 1) of the bench's three members, or zeros; (3, 4, 1, 1)."""
    if not random:
        return torch.zeros(2, 3, 4, 1, 1, dtype=torch.float64).unbind()
    generators = [torch.Generator().manual_seed(100 + i) for i in range(3)]
    draws = [(torch.rand((4, 1, 1), generator=g), torch.randn((4, 1, 1), generator=g)) for g in generators]
    omega, beta = (torch.stack(parts).double() for parts in zip(*draws, strict=True))
    return omega, beta


def assert_partly_bound(moves: torch.Tensor, epsilon: float) -> None:
    """The ball of radius ε holds some entries of the moves and leaves others as they are."""
    assert 0.2 < (moves.abs() > epsilon).double().mean() < 0.8


@pytest.mark.parametrize(
    ("random", "rho", "epsilon"),
    [(False, 0.5, 1e9), (False, 0.5, 0.01), (True, 0.5, 1e9), (True, 10.0, 1e9), (True, 10.0, 1.0)],
)
def test_transform_takes_one_gradient_step_in_scale_and_shift(
    bench: Bench, random: bool, rho: float, epsilon: float
) -> None:
    """Oracle: finite differences of the energy along DDIM's own steps in every entry of ω and b; then the l∞ ball."""
    omega, beta = published_start(random)
    slopes = [torch.zeros_like(omega), torch.zeros_like(beta)]
    for channel in range(4):
        unit = torch.zeros_like(omega)
        unit[:, channel] = 1
        of_omega = directional(lambda value: rolled_out(bench, bench.latents * (1 + value) + beta, 2), omega, unit)
        of_beta = directional(lambda value: rolled_out(bench, bench.latents * (1 + omega) + value, 2), beta, unit)
        slopes[0][:, channel, 0, 0], slopes[1][:, channel, 0, 0] = of_omega, of_beta
    expected = bench.latents * (omega - rho * slopes[0]) + beta - rho * slopes[1]
    if epsilon < 1e9:
        assert_partly_bound(expected, epsilon)
        expected = expected.clamp(-epsilon, epsilon)

    method = METHODS["transform_random" if random else "transform"](rho=rho, epsilon=epsilon)
    batch = bench.batch(method)
    moved, _ = method.transformed(bench.latents, *method.initial(bench.latents, batch), bench.index, batch)
    torch.testing.assert_close(moved - bench.latents, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("period", [1, 3])
def test_transform_looks_along_the_samplers_own_path(bench: Bench, period: int) -> None:
    """Oracle: P steps of DDIM, the energy of each step's clean latent averaged."""
    method = METHODS["transform"](period=period)
    with torch.no_grad():
        energies = method.rollout_energies(bench.latents, bench.index, bench.batch(method))
        ours = sum(energies) / len(energies)
    torch.testing.assert_close(ours, rolled_out(bench, bench.latents, period), atol=1e-9, rtol=0)


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 1e9])
def test_official_is_the_published_update(bench: Bench, epsilon: float) -> None:
    """Oracle: the published update written out again, tensor by tensor; its mean was taken over a batch of one image."""
    method = METHODS["transform_official"](rho=10.0, epsilon=epsilon)
    omega, beta = (start.requires_grad_() for start in published_start(random=True))
    ddim = bench.batch(method).denoiser.scheduler
    classifier, vae = bench.encoder.classifier, bench.generator.vae
    text = torch.cat([bench.prompts.negative.tokens.expand(3, -1, -1), bench.prompts.positive.tokens[bench.labels]])

    z, score = bench.latents * (1 + omega) + beta, 0.0
    for t in ddim.timesteps[bench.index : bench.index + 2]:
        free, conditioned = bench.generator.network(torch.cat([z, z]), t, text).sample.chunk(2)
        result = ddim.step(free + CFG_SCALE * (conditioned - free), t, z)
        z = result.prev_sample
        picture = vae.decode(result.pred_original_sample / vae.config.scaling_factor).sample
        raw = classifier.backbone(F.interpolate(picture, (32, 32), mode="bicubic"))
        score = score + CLASS_WEIGHT * (raw - bench.prototypes.classes[bench.labels]).norm(dim=1).sum()
        similarity = torch.einsum("bd,bkd->bk", raw, bench.prototypes.groups[bench.labels])
        similarity[~bench.prototypes.present[bench.labels]] = -torch.inf
        nearest = bench.prototypes.groups[bench.labels, similarity.argmax(1)]
        score = score + GROUP_WEIGHT * (raw - nearest).norm(dim=1).sum()
    slopes = torch.autograd.grad(score / 2, (omega, beta))
    with torch.no_grad():
        published = bench.latents * (1 + omega - 10 * slopes[0]) + beta - 10 * slopes[1]
        published = bench.latents + (published - bench.latents).clamp(-epsilon, epsilon)
        assert min(slope.abs().amax() for slope in slopes) > 1e-3  # far above the tolerance

    batch = bench.batch(method)
    ours, _ = method.transformed(bench.latents, *method.initial(bench.latents, batch), bench.index, batch)
    torch.testing.assert_close(ours, published, atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("num_steps", "strength", "published", "pipelines"),
    [(50, 0.5, 25, 25), (50, 0.35, 32, 33), (30, 0.33, 20, 21), (30, 0.85, 4, 5), (7, 0.95, 0, 1)],
)
def test_official_starts_where_the_published_code_does(num_steps, strength, published, pipelines) -> None:
    """Rounded down as the published code does, by hand: half a step earlier than img2img where that matters."""
    assert METHODS["transform_official"]().schedule(num_steps, strength).first == published
    assert METHODS["transform"]().schedule(num_steps, strength).first == pipelines


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("direct", {"rho": 0.0}),
        ("freedom", {"rho": 0.0}),
        ("mpgd", {"rho": 0.0}),
        ("tfg", {"rho": 0.0, "mu": 0.0}),
        ("transform", {"rho": 0.0}),
        ("transform", {"epsilon": 0.0}),
        ("transform_random", {"epsilon": 0.0}),
        ("transform_official", {"epsilon": 0.0}),
    ],
)
def test_guidance_that_is_off_is_no_guidance(bench: Bench, name: str, off: dict[str, float]) -> None:
    guided, energy = bench.step(METHODS[name](**off))
    plain, expected_energy = bench.step(METHODS["none"]())
    torch.testing.assert_close(guided, plain, atol=1e-12, rtol=0)
    torch.testing.assert_close(energy, expected_energy, atol=1e-12, rtol=0)


@pytest.mark.parametrize("gradient_norm", ["none", "unit"])
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_eight_is_eight_batches_of_one_in_any_order(name: str, gradient_norm: str) -> None:
    bench, options = Bench(batch=8), {"gradient_norm": gradient_norm}
    together, energies = bench.step(METHODS[name](**options))
    for i in range(8):
        alone, energy = bench.step(METHODS[name](**options), torch.tensor([i]))
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-8, rtol=0)
        torch.testing.assert_close(energies[i : i + 1], energy, atol=1e-8, rtol=0)
    order = torch.tensor([5, 2, 7, 0, 1, 6, 4, 3])
    shuffled, _ = bench.step(METHODS[name](**options), order)
    torch.testing.assert_close(shuffled, together[order], atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ["direct", "freedom", "tfg"])
def test_a_small_step_in_z_lowers_every_samples_energy(bench: Bench, name: str) -> None:
    alone = {} if name == "direct" else {"recurrence": 1, "mu": 0.0, "gamma": 0.0}
    plain, before = bench.step(METHODS["none"]())
    guided, _ = bench.step(METHODS[name](rho=1e-3, **alone))
    after = bench.clean_energy(bench.clean(bench.latents + (guided - plain)))
    assert (after < before).all()


def test_a_small_step_in_the_clean_latent_lowers_every_samples_energy(bench: Bench) -> None:
    plain, before = bench.step(METHODS["none"]())
    guided, _ = bench.step(METHODS["mpgd"](rho=1e-3))
    assert (bench.clean_energy(bench.clean(bench.latents) + (guided - plain)) < before).all()


def test_a_small_transform_lowers_every_samples_energy_before_the_clamp(bench: Bench) -> None:
    method = METHODS["transform"](rho=1e-3, epsilon=1e9)
    zeros = torch.zeros(3, 4, 1, 1, dtype=torch.float64)
    moved, _ = method.transformed(bench.latents, zeros, zeros, bench.index, bench.batch(method))
    assert (rolled_out(bench, moved, 2) < rolled_out(bench, bench.latents, 2)).all()


@pytest.mark.parametrize("name", ["direct", "freedom", "mpgd", "tfg"])
@pytest.mark.parametrize("rho_schedule", ["constant", "increasing", "decreasing"])
def test_a_schedule_keeps_the_mean_strength_over_the_guided_steps(name: str, rho_schedule: str) -> None:
    method = METHODS[name](rho_schedule=rho_schedule, period=4)
    schedule = method.schedule(STEPS, STRENGTH)
    shares = [method.share(index, schedule) for index in method.guided_steps(schedule)]
    assert len(shares) == 4
    assert sum(shares) / 4 == pytest.approx(1)
    ordered = {"constant": shares, "increasing": sorted(set(shares)), "decreasing": sorted(set(shares), reverse=True)}
    assert shares == ordered[rho_schedule]


@pytest.mark.parametrize("name", ["direct", "freedom", "mpgd", "tfg"])
@pytest.mark.parametrize(("every", "guided"), [(1, [4, 5, 6, 7]), (2, [4, 6]), (3, [4, 7]), (9, [4])])
def test_each_so_many_th_of_the_steps_is_guided(name: str, every: int, guided: list[int]) -> None:
    method = METHODS[name](every=every, period=4, rho_schedule="increasing")
    schedule = method.schedule(STEPS, STRENGTH)
    assert list(method.guided_steps(schedule)) == guided
    assert sum(method.share(index, schedule) for index in guided) / len(guided) == pytest.approx(1)


@pytest.mark.parametrize("name", ["direct", "freedom", "mpgd", "tfg"])
def test_the_strength_of_a_step_is_rho_times_its_share(bench: Bench, name: str) -> None:
    alone = {"freedom": {"recurrence": 1}, "tfg": {"recurrence": 1, "mu": 0.0, "gamma": 0.0}}.get(name, {})
    plain, _ = bench.step(METHODS["none"]())
    constant, _ = bench.step(METHODS[name](**alone))
    increasing, _ = bench.step(METHODS[name](rho_schedule="increasing", period=4, **alone))
    torch.testing.assert_close(increasing - plain, (constant - plain) * 2 / 5, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", ["direct", "freedom", "mpgd", "tfg"])
def test_a_normalised_gradient_moves_every_sample_by_rho(bench: Bench, name: str) -> None:
    alone = {"freedom": {"recurrence": 1}, "tfg": {"recurrence": 1, "mu": 0.0, "gamma": 0.0}}.get(name, {})
    plain, _ = bench.step(METHODS["none"]())
    guided, _ = bench.step(METHODS[name](rho=0.7, gradient_norm="unit", **alone))
    distance = (guided - plain).flatten(1).norm(dim=1)
    *_, next_signal, _ = levels(bench)
    expected = 0.7 * (float(next_signal) if name == "mpgd" else 1.0)
    torch.testing.assert_close(distance, torch.full_like(distance, expected), atol=1e-9, rtol=0)


def test_mpgd_needs_no_backward_pass_through_the_network(bench: Bench) -> None:
    seen = []
    hook = bench.generator.network.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    for method in (METHODS["mpgd"](), METHODS["tfg"](rho=0.0)):
        bench.step(method)
    assert not any(seen)
    bench.step(METHODS["direct"]())
    hook.remove()
    assert seen[-1]


@pytest.mark.parametrize(
    ("name", "options", "evaluations"),
    [
        ("none", {}, 1),
        ("direct", {}, 1),
        ("mpgd", {}, 1),
        ("transform", {"period": 2}, 3),  # two of the rollout, of which the first is that of z, and one from z'
        ("transform_random", {"period": 2}, 4),
        ("transform_official", {"init": "identity", "period": 2}, 4),
    ],
)
def test_a_step_evaluates_the_network_no_more_often_than_it_must(bench: Bench, name, options, evaluations) -> None:
    calls: list[int] = []
    counting = bench.generator.network.register_forward_hook(lambda *_: calls.append(1))
    try:
        _, energies = bench.step(METHODS[name](**options))
    finally:
        counting.remove()
    assert len(calls) == evaluations
    _, expected = bench.step(METHODS["none"]())
    torch.testing.assert_close(energies, expected, atol=1e-12, rtol=0)
