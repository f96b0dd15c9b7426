"""The wrapper around a diffusion pipeline: exact predictions, diffusers' own img2img, clear refusals."""

import inspect
from collections.abc import Sequence

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LatentConsistencyModelImg2ImgPipeline,
    LCMScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UniPCMultistepScheduler,
)
from pipelines import FAMILIES, SCHEDULERS, VALID, small_pipeline, small_sd3_pipeline
from unguided import PROMPTS, synthesizer, three_images

from distdiff.data.images import LabelledImages
from distdiff.data.pixels import to_tensor
from distdiff.errors import UserError
from distdiff.expansion.plan import ExpansionPlan
from distdiff.generator.kinds import DIFFUSION_SCHEDULERS, STABLE_DIFFUSION
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.schedulers import build_scheduler, resolve_scheduler
from distdiff.guidance.schedule import StepSchedule
from distdiff.methods.item import WorkItem

IMG2IMG = {
    "sd": StableDiffusionImg2ImgPipeline,
    "sd_v": StableDiffusionImg2ImgPipeline,
    "sdxl": StableDiffusionXLImg2ImgPipeline,
    "sd3": StableDiffusion3Img2ImgPipeline,
    "lcm": LatentConsistencyModelImg2ImgPipeline,
}


@pytest.fixture(scope="module")
def pipelines() -> dict[str, DiffusionPipeline]:
    return {name: build() for name, build in FAMILIES.items()}


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
@pytest.mark.parametrize("strength", [0.4, 0.75, 1.0])
@pytest.mark.parametrize(("family", "scheduler"), VALID)
def test_unguided_expansion_is_diffusers_img2img(pipelines, family, scheduler, strength, cfg_scale) -> None:
    """Oracle: the family's own img2img pipeline with one generator an image, seeded as the plan says."""
    pipeline, images = pipelines[family], three_images()
    generator = LatentDiffusion(pipeline, num_steps=8, cfg_scale=cfg_scale, resolution=32, scheduler=scheduler)
    items = ExpansionPlan(images, factor=2, strength=strength, seed=5)
    ours = synthesizer(generator, images)(items).images

    img2img = img2img_pipeline(pipeline, family, scheduler)
    theirs = img2img(**img2img_arguments(items, images, strength, 8, cfg_scale)).images
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


OWN_SCHEDULERS = {
    "ddim": DDIMScheduler,
    "ddim, zero terminal SNR": lambda **k: DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing", **k),
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "dpmpp_2m, Karras": lambda **k: DPMSolverMultistepScheduler(use_karras_sigmas=True, **k),
    "unipc": UniPCMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "euler, trailing": lambda **k: EulerDiscreteScheduler(timestep_spacing="trailing", **k),
    "lcm": LCMScheduler,
}


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
@pytest.mark.parametrize("name", OWN_SCHEDULERS)
def test_a_pipelines_own_scheduler_is_taken_as_the_pipeline_takes_it(name: str, cfg_scale: float) -> None:
    """Oracle: the pipeline with the very scheduler object it was made with, of which only the betas are said.

    cfg_scale 1 with few steps and trailing timesteps is how Turbo and LCM-LoRA models run.
    """
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    prediction = {"prediction_type": "v_prediction"} if "zero" in name else {}
    parts = small_pipeline().components | {"scheduler": OWN_SCHEDULERS[name](**betas, **prediction)}
    pipeline = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    images, items = three_images(), ExpansionPlan(three_images(), 1, 0.5, seed=5)
    ours = synthesizer(LatentDiffusion(pipeline, 4, cfg_scale, 32), images)(list(items)).images
    theirs = pipeline(**img2img_arguments(items, images, 0.5, 4, cfg_scale)).images
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3"])
def test_a_negative_prompt_is_the_pipelines_own(pipelines, family: str) -> None:
    generator = LatentDiffusion(pipelines[family], 4, 3.0, 32, negative_prompt="a dog")
    images, items = three_images(), ExpansionPlan(three_images(), 1, 0.75, seed=5)
    ours = synthesizer(generator, images)(list(items)).images
    arguments = img2img_arguments(items, images, 0.75, 4, 3.0)
    img2img = img2img_pipeline(pipelines[family], family, SCHEDULERS[family][0])
    theirs = img2img(**arguments, negative_prompt=["a dog"] * len(items)).images
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (ours - img2img(**arguments).images).abs().max() > 1e-4


def test_a_negative_prompt_that_would_change_nothing_is_refused(pipelines) -> None:
    for family, cfg_scale in (("sd", 1.0), ("lcm", 8.0)):
        with pytest.raises(UserError, match=r"generator.negative_prompt='a dog' is not allowed"):
            LatentDiffusion(pipelines[family], 4, cfg_scale, 32, negative_prompt="a dog")


def test_many_prompts_are_embedded_as_one_by_one(pipelines) -> None:
    for family in ("sd", "sdxl", "sd3"):
        generator = LatentDiffusion(pipelines[family], 4, 3.0, 32)
        words = [f"a {number}" for number in range(40)]
        together = generator.embed(words)
        alone = generator.embed(words[37:38])
        torch.testing.assert_close(together.positive.tokens[37:38], alone.positive.tokens)
        torch.testing.assert_close(together.negative.tokens, alone.negative.tokens)


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (EDMDPMSolverMultistepScheduler(), "EDMDPMSolverMultistepScheduler with prediction type epsilon"),
        (FlowMatchEulerDiscreteScheduler(), "FlowMatchEulerDiscreteScheduler"),
        (
            DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
            "DPMSolverMultistepScheduler with prediction type flow_prediction",
        ),
    ],
)
def test_a_model_of_another_kind_of_noise_is_refused(scheduler, words: str) -> None:
    pipeline = small_pipeline()
    pipeline.scheduler = scheduler
    with pytest.raises(UserError, match=words):
        LatentDiffusion(pipeline, 4, 3.0, 32)


def test_stable_diffusion_3_works_without_t5() -> None:
    generator = LatentDiffusion(small_sd3_pipeline(with_t5=False), num_steps=2, cfg_scale=2.0, resolution=32)
    images = synthesizer(generator, three_images())(ExpansionPlan(three_images(), 1, 1.0, 0)).images
    assert torch.isfinite(images).all()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("scheduler", DIFFUSION_SCHEDULERS)
def test_the_clean_latent_is_exact(scheduler: str, prediction_type: str) -> None:
    """Closed form: z_t made by the scheduler's own `add_noise`; with the true output, ẑ0 is what went in.

    The true output at unit variance is ε, √ᾱ ε − √(1 − ᾱ) z0 (Salimans & Ho, 2022) or z0.
    """
    generator = LatentDiffusion(small_pipeline(prediction_type), 10, 1.0, 32, scheduler)
    denoiser = generator.denoiser(generator.embed(["a cat"]))
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for index in range(10):
        noisy = generator.denoiser(generator.embed(["a cat"])).add_noise(clean, noise, index)
        alpha_bar = _alpha_bar(denoiser.scheduler, index)
        velocity = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
        output = {"epsilon": noise, "v_prediction": velocity, "sample": clean}[prediction_type]
        torch.testing.assert_close(denoiser.clean(noisy, output, index), clean, atol=2e-4, rtol=0)


def test_the_clean_latent_of_a_flow_is_exact() -> None:
    """Closed form: z_t = (1 − σ) z0 + σ ε has the velocity ε − z0 (Esser et al., 2024)."""
    generator = LatentDiffusion(small_sd3_pipeline(), 10, 1.0, 32)
    clean, noise = torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for index in range(10):
        denoiser = generator.denoiser(generator.embed(["a cat"]))
        noisy = denoiser.add_noise(clean, noise, index)
        torch.testing.assert_close(denoiser.clean(noisy, noise - clean, index), clean, atol=1e-6, rtol=0)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("scheduler", DIFFUSION_SCHEDULERS)
def test_the_clean_latent_is_the_schedulers_own(scheduler: str, prediction_type: str) -> None:
    """Oracle: what each scheduler itself takes for the clean latent on the way."""
    generator = LatentDiffusion(small_pipeline(prediction_type), 10, 1.0, 32, scheduler)
    denoiser = generator.denoiser(generator.embed(["a cat"]), generators=[torch.Generator()])
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for index in range(10):
        output = denoiser.predict(latents, index)
        clean = denoiser.clean(latents, output, index)
        if scheduler in ("dpmpp_2m", "unipc"):
            denoiser._begin(index)
            if denoiser.scheduler.step_index is None:
                denoiser.scheduler._init_step_index(denoiser.scheduler.timesteps[index])
            if scheduler == "unipc":
                denoiser.scheduler.disable_corrector = list(range(10))  # it would move the sample first
            expected = denoiser.scheduler.convert_model_output(output, sample=latents)
        else:
            ahead = denoiser.fork()
            ahead._begin(index)
            step = ahead.scheduler.step(output, ahead.scheduler.timesteps[index], latents * ahead.levels.scale[index])
            expected = getattr(step, "pred_original_sample", None)
            if expected is None:  # LCM gives its mixture with the noisy latent: undo it
                skip, out = ahead.scheduler.get_scalings_for_boundary_condition_discrete(
                    ahead.scheduler.timesteps[index]
                )
                expected = (step.denoised - skip * latents) / out
        torch.testing.assert_close(clean, expected, atol=1e-4, rtol=1e-4)
        latents = denoiser.advance(latents, output, index)


@pytest.mark.parametrize(("family", "scheduler"), VALID)
def test_going_back_over_a_step_gives_the_noise_level_it_began_at(pipelines, family, scheduler) -> None:
    """Closed form: renoising a z_{t−1} of known content must give z_t's signal and variance."""
    generator = LatentDiffusion(pipelines[family], 6, 1.0, 32, scheduler)
    levels = generator.denoiser(generator.embed(["a cat"])).levels
    denoiser = generator.denoiser(generator.embed(["a cat"]))
    rng = torch.Generator().manual_seed(0)
    clean, noise, more = torch.randn(3, 400_000, generator=rng, dtype=torch.float64).view(3, 1, 1, 1, -1)
    for index in range(1, 6):
        following = levels.next_signal[index] * clean + levels.next_noise[index] * noise
        again = denoiser.renoise(following, more, index)
        signal = (again * clean).mean() / (clean * clean).mean()
        assert signal.item() == pytest.approx(levels.signal[index].item(), abs=0.02 * (1 + levels.noise[index].item()))
        rest = again - signal * clean
        assert rest.std().item() == pytest.approx(levels.noise[index].item(), rel=0.01)


@pytest.mark.parametrize(("family", "scheduler"), VALID)
def test_looking_ahead_leaves_the_sampler_untouched(pipelines, family: str, scheduler: str) -> None:
    generator = LatentDiffusion(pipelines[family], 6, 1.0, 32, scheduler)

    def denoise(look_ahead: bool) -> torch.Tensor:
        channels, side = generator.network.config.in_channels, generator.network.config.sample_size
        latents = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(1))
        denoiser = generator.denoiser(generator.embed(["a cat"]), 1.0, [torch.Generator().manual_seed(2)])
        for index in range(6):
            if look_ahead:
                ahead, future = denoiser.fork(), latents
                for position in range(index, 6):
                    future = ahead.advance(future, ahead.predict(future, position), position)
            latents = denoiser.advance(latents, denoiser.predict(latents, index), index)
        return latents

    torch.testing.assert_close(denoise(True), denoise(False), atol=0, rtol=0)


def test_a_displaced_sample_keeps_its_displacement_under_unipc() -> None:
    """UniPC's corrector computes the sample anew from the last one; without care it would undo guidance.

    Oracle: a model whose output does not depend on the sample, where the corrector is linear, so that a displacement must
    reach the next sample as in DPM-Solver++ at first order: multiplied with the ratio of the noise levels.
    """
    generator = LatentDiffusion(small_pipeline("sample"), 6, 1.0, 32, "unipc")

    def walk(displacement: float) -> tuple[torch.Tensor, torch.Tensor]:
        denoiser = generator.denoiser(generator.embed(["a cat"]))
        latents, output = torch.ones(1, 4, 8, 8), torch.full((1, 4, 8, 8), 0.3)
        for index in range(3):
            latents = denoiser.advance(latents, output, index)
        moved = latents + displacement
        return denoiser.advance(moved, output, 3), denoiser.levels

    (moved, levels), (still, _) = walk(0.5), walk(0.0)
    ratio = levels.next_noise[3] / levels.noise[3]
    torch.testing.assert_close(moved - still, torch.full_like(still, 0.5 * ratio), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "scheduler"), [("sd3", "ddim"), ("sd3", "lcm"), ("sd", "flow_euler"), ("lcm", "euler")]
)
def test_a_scheduler_that_makes_no_sense_is_one_line(pipelines, family: str, scheduler: str) -> None:
    with pytest.raises(
        UserError, match=rf"^generator.scheduler={scheduler} is not allowed: for a .* model, one of auto, "
    ):
        LatentDiffusion(pipelines[family], 6, 1.0, 32, scheduler)


def test_auto_takes_the_pipelines_own_scheduler(pipelines) -> None:
    chosen = {name: LatentDiffusion(pipeline, 6, 1.0, 32).scheduler_name for name, pipeline in pipelines.items()}
    assert chosen == {"sd": "ddim", "sd_v": "ddim", "sdxl": "ddim", "sd3": "flow_euler", "lcm": "lcm"}
    assert resolve_scheduler("auto", STABLE_DIFFUSION, {"_class_name": "PNDMScheduler"}) == "ddim"
    assert resolve_scheduler("auto", STABLE_DIFFUSION, {"_class_name": "EulerDiscreteScheduler"}) == "euler"


def test_a_resolution_that_the_autoencoder_cannot_halve_is_one_line(pipelines) -> None:
    with pytest.raises(UserError, match=r"generator.resolution=30 is not allowed: for this model, a multiple of 4"):
        LatentDiffusion(pipelines["sd"], 6, 1.0, 30)


def test_a_consistency_model_refuses_more_steps_than_a_strength_has(pipelines) -> None:
    generator = LatentDiffusion(pipelines["lcm"], 8, 1.0, 32)
    message = r"generator.num_steps=8 is not allowed: at strength 0.1 .* from 1 to 5"
    with pytest.raises(UserError, match=message):
        generator.denoiser(generator.embed(["a cat"]), strength=0.1)
    plan = ExpansionPlan(three_images(), 2, [0.5, 0.1], seed=0)
    with pytest.raises(UserError, match=message):  # before the first image
        plan.batches(plan.missing(()), 2, synthesizer(generator, three_images()).group)


@pytest.mark.parametrize(("family", "counting"), [("sd", "floor"), ("sdxl", "floor"), ("sd3", "ceil")])
@pytest.mark.parametrize("num_steps", [7, 25, 50])
def test_steps_that_run_are_diffusers_img2img_steps(pipelines, num_steps: int, family: str, counting: str) -> None:
    pipeline = img2img_pipeline(pipelines[family], family, SCHEDULERS[family][0])
    pipeline.scheduler.set_timesteps(num_steps)
    for strength in (0.2, 0.33, 0.5, 0.7, 0.95, 1.0):
        _, expected = pipeline.get_timesteps(num_steps, strength, "cpu")
        schedule = StepSchedule.of(num_steps, strength, None, None, counting)
        assert num_steps - schedule.first == expected
        assert schedule.first <= schedule.first_guided < num_steps


def img2img_arguments(
    items: Sequence[WorkItem], images: LabelledImages, strength: float, num_steps: int, cfg_scale: float
) -> dict[str, object]:
    """What diffusers' img2img pipelines are called with to make the same images."""
    return {
        "prompt": [PROMPTS[item.label] for item in items],
        "image": torch.stack([to_tensor(images.image(item.position)) for item in items]),
        "strength": strength,
        "num_inference_steps": num_steps,
        "guidance_scale": cfg_scale,
        "generator": [torch.Generator().manual_seed(item.seed) for item in items],
        "output_type": "pt",
    }


def img2img_pipeline(pipeline: DiffusionPipeline, family: str, scheduler: str) -> DiffusionPipeline:
    """diffusers' pipeline with the scheduler that diffusers would build from the pipeline's own configuration."""
    components = {**pipeline.components, "scheduler": build_scheduler(scheduler, pipeline.scheduler.config)}
    options = {"requires_safety_checker": False} if family in ("sd", "sd_v", "lcm") else {}
    names = inspect.signature(IMG2IMG[family].__init__).parameters
    img2img = IMG2IMG[family](**{name: part for name, part in components.items() if name in names}, **options)
    img2img.set_progress_bar_config(disable=True)
    return img2img


def _alpha_bar(scheduler, index: int) -> torch.Tensor:
    """ᾱ at a step, from the betas alone (interpolated where a scheduler's timestep is no integer)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    table = torch.cumprod(1 - betas, 0)
    return table[round(float(scheduler.timesteps[index]))]
