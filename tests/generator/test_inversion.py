"""Deterministic inversion: the noise from which the model draws a given latent."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, FlowMatchEulerDiscreteScheduler
from pipelines import FAMILIES, small_pipeline
from unguided import PROMPTS

from distdiff.errors import UserError
from distdiff.generator.denoiser import Denoiser
from distdiff.generator.inversion import check_invertible, invert
from distdiff.generator.inversions import ComputedInversions, StoredInversions
from distdiff.generator.latent_diffusion import LatentDiffusion

CLEAN = torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 0}
BETAS |= {"clip_sample": False, "set_alpha_to_one": False}


def in_float64(pipeline):
    for part in (pipeline.vae, getattr(pipeline, "unet", None), getattr(pipeline, "transformer", None)):
        if part is not None:
            part.double()
    return pipeline


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_it_takes_the_steps_of_diffusers_own_inverse_scheduler(prediction_type: str) -> None:
    """Where both choose the same times: 9 steps to 100, ..., 900; diffusers' tenth, to 0, changes nothing here."""
    pipeline = in_float64(small_pipeline(prediction_type))
    betas = BETAS | {"prediction_type": prediction_type}
    pipeline.scheduler = DDIMScheduler(**betas)
    generator = LatentDiffusion(pipeline, 10, 7.5, 32)
    theirs = DDIMInverseScheduler(**betas)
    theirs.alphas_cumprod, theirs.initial_alpha_cumprod = (
        theirs.alphas_cumprod.double(),
        theirs.alphas_cumprod[0].double(),
    )
    theirs.set_timesteps(10)
    prompts = generator.embed(PROMPTS)
    latents = CLEAN
    with torch.no_grad():
        for time in theirs.timesteps:
            output = generator.family.output(latents, time, prompts.positive)  # without classifier-free guidance
            latents = theirs.step(output, time, latents).prev_sample
    torch.testing.assert_close(invert(generator, CLEAN, prompts, 9), latents, atol=1e-6, rtol=1e-6)


def stand_in(scheduler, model) -> SimpleNamespace:
    """A generator whose network is a closed form."""
    scheduler.set_timesteps(50)
    for name in ("alphas_cumprod", "final_alpha_cumprod", "sigmas"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).double())
    denoiser = Denoiser(model, None, scheduler)
    return SimpleNamespace(denoiser=lambda prompts: denoiser, device="cpu", latent_dtype=torch.float64)


def test_data_that_are_gaussian_are_inverted_as_their_closed_form_says() -> None:
    """For x ~ N(0, c²), the best ε is σx / (α²c² + σ²), and the path scales x by √(α²c² + σ²). The error falls with
    the number of steps, as Euler's does."""
    c, scheduler = 0.5, DDIMScheduler(**BETAS)

    def epsilon(latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        alpha_bar = scheduler.alphas_cumprod[int(time)]
        return (1 - alpha_bar).sqrt() * latents / (alpha_bar * c**2 + 1 - alpha_bar)

    generator = stand_in(scheduler, epsilon)

    def spread(alpha_bar: torch.Tensor) -> torch.Tensor:
        return (alpha_bar * c**2 + 1 - alpha_bar).sqrt()

    exact = CLEAN * spread(scheduler.alphas_cumprod[int(scheduler.timesteps[0])]) / spread(scheduler.alphas_cumprod[0])
    errors = [float((invert(generator, CLEAN, no_prompts(), n) / exact - 1).abs().max()) for n in (50, 100, 200)]
    assert errors[2] < 0.02
    assert all(1.6 < before / after < 2.4 for before, after in pairwise(errors))


def test_flow_matching_is_inverted_as_its_closed_form_says() -> None:
    """The best velocity is (σ − (1 − σ)c²) x / ((1 − σ)²c² + σ²), and the path ends at x / c."""
    c = 0.5

    def velocity(latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        sigma = float(time) / 1000
        return (sigma - (1 - sigma) * c**2) * latents / ((1 - sigma) ** 2 * c**2 + sigma**2)

    generator = stand_in(FlowMatchEulerDiscreteScheduler(shift=3.0), velocity)
    errors = [float((invert(generator, CLEAN, no_prompts(), n) * c / CLEAN - 1).abs().max()) for n in (100, 200, 400)]
    assert errors[2] < 0.01
    assert all(1.6 < before / after < 2.4 for before, after in pairwise(errors))


def no_prompts() -> SimpleNamespace:
    return SimpleNamespace(positive=None)


def gaussian_epsilon(scheduler, scale: float):
    """The best ε for data N(0, scale²), with a ripple. Random weights predict no noise, and make a path too steep."""

    def model(latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        alpha_bar = scheduler.alphas_cumprod[round(float(time))].double()
        best = (1 - alpha_bar).sqrt() * latents / (alpha_bar * scale**2 + 1 - alpha_bar)
        return best + 0.02 * latents.sin()

    return model


@pytest.mark.parametrize(
    ("family", "scheduler"),
    [("sd", "ddim"), ("sd", "dpmpp_2m"), ("sd", "unipc"), ("sd", "euler"), ("sd_v", "ddim"), ("sd3", "flow_euler")],
)
def test_denoising_an_inversion_gives_the_latent_back(monkeypatch, family: str, scheduler: str) -> None:
    """Without classifier-free guidance, under the same prompt; the more steps, the nearer."""
    pipeline, errors = in_float64(FAMILIES[family]()), []
    for num_steps in (10, 60):
        generator = LatentDiffusion(pipeline, num_steps, 1.0, 32, scheduler)
        if family == "sd":
            model = gaussian_epsilon(generator.denoiser(generator.embed(PROMPTS)).scheduler, 0.8)
            monkeypatch.setattr(generator, "_guided_model", lambda prompts, model=model: model)
        prompts = generator.embed(PROMPTS)
        clean = torch.randn(2, *generator.latent_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        denoiser = generator.denoiser(prompts)
        with torch.no_grad():
            latents = invert(generator, clean, prompts, num_steps)
            for index in range(num_steps):
                latents = denoiser.advance(latents, denoiser.predict(latents, index), index)
        errors.append(float((latents - clean).norm() / clean.norm()))
    assert errors[1] < 0.1
    if scheduler not in ("dpmpp_2m", "unipc"):  # of second order: with few steps, its error and the inversion's cancel
        assert errors[1] < 0.5 * errors[0]


def test_what_cannot_be_inverted_is_one_line() -> None:
    pipeline = small_pipeline()
    for scheduler, steps, words in (("lcm", 8, "adds noise"), ("euler", 4, r"^generator.num_steps=4 is .*turbo")):
        with pytest.raises(UserError, match=words):
            check_invertible(LatentDiffusion(pipeline, steps, 1.0, 32, scheduler))
    with pytest.raises(UserError, match="a latent consistency model"):
        check_invertible(LatentDiffusion(FAMILIES["lcm"](), 5, 1.0, 32))
    generator = LatentDiffusion(pipeline, 5, 1.0, 32, "ddim")
    check_invertible(generator)
    with pytest.raises(
        UserError, match=r"^method.inversion_steps=2000 is not allowed: this noise schedule has \d+ steps"
    ):
        invert(generator, CLEAN, generator.embed(PROMPTS), 2000)


def test_inversions_are_read_as_they_were_written_and_computed_once(tmp_path) -> None:
    values, asked = torch.randn(5, 4, 2, 2), []
    StoredInversions.write(tmp_path, iter([values[:2], values[2:4], values[4:]]), 5)
    positions = torch.tensor([4, 0, 4])
    assert torch.equal(StoredInversions(tmp_path).select(positions), values[positions])

    def computed(wanted: torch.Tensor) -> torch.Tensor:
        asked.extend(wanted.tolist())
        return values[wanted]

    inversions = ComputedInversions(computed)
    assert torch.equal(inversions.select(positions), values[positions])
    assert torch.equal(inversions.select(torch.tensor([0, 1])), values[[0, 1]])
    assert asked == [4, 0, 1]
