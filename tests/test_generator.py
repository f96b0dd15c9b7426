"""The wrapper around a diffusion pipeline: exact predictions, diffusers' own img2img, clear refusals."""

import numpy as np
import pytest
import torch
from conftest import compose, small_pipeline
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from distdiff.config.composition import load_option
from distdiff.data.images import LabelledImages, to_tensor
from distdiff.errors import UserError
from distdiff.expansion.expander import build_guidance
from distdiff.expansion.plan import plan_expansion
from distdiff.expansion.synthesis import GuidedImg2Img
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.loading import load_generator
from distdiff.guidance.schedule import StepSchedule


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_clean_latent_is_the_schedulers_own(prediction_type: str) -> None:
    """Oracle: DDIMScheduler.step(...).pred_original_sample."""
    generator = LatentDiffusion(small_pipeline(prediction_type), num_steps=10, cfg_scale=1.0)
    embeddings = generator.embed(["a cat"])
    denoiser = generator.denoiser(embeddings, embeddings)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for index in (0, 5, 9):
        output = denoiser.predict(latents, index)
        expected = denoiser.scheduler.step(output, denoiser.scheduler.timesteps[index], latents)
        torch.testing.assert_close(denoiser.clean(latents, output, index), expected.pred_original_sample)
        torch.testing.assert_close(denoiser.advance(latents, output, index), expected.prev_sample)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noising_then_predicting_with_the_true_output_gives_the_clean_latent_back(prediction_type: str) -> None:
    """Closed form: with the true noise (or velocity) as the output, the clean latent is exact."""
    generator = LatentDiffusion(small_pipeline(prediction_type).to(torch.float64), num_steps=10, cfg_scale=1.0)
    denoiser = generator.denoiser(generator.embed(["a cat"]), generator.embed([""]))
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for index in range(10):
        noisy = denoiser.add_noise(clean, noise, index)
        alpha_bar = denoiser.scheduler.alphas_cumprod[denoiser.scheduler.timesteps[index]]
        output = noise if prediction_type == "epsilon" else alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
        torch.testing.assert_close(denoiser.clean(noisy, output, index), clean, atol=1e-9, rtol=0)


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
@pytest.mark.parametrize("strength", [0.4, 0.75, 1.0])
def test_unguided_expansion_is_diffusers_img2img(strength: float, cfg_scale: float) -> None:
    """Oracle: StableDiffusionImg2ImgPipeline with one generator an image, seeded as the plan says."""
    pipeline = small_pipeline()
    images, energy = three_images(), ZeroEnergy()
    generator = LatentDiffusion(pipeline, num_steps=8, cfg_scale=cfg_scale)
    items = plan_expansion(images, factor=2, strength=strength, seed=5)
    guidance, _ = build_guidance(load_option("guidance", "none"), load_option("prototype", "hierarchical"))
    prompts = ["a photo of a cat.", "a photo of a dog."]
    synthesizer = GuidedImg2Img(
        generator,
        guidance,
        energy,
        generator.encode(images.tensors(32, "squash")),
        generator.embed(prompts),
        generator.embed([""]),
        seed=5,
    )
    ours = synthesizer(items).images

    img2img = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    img2img.set_progress_bar_config(disable=True)
    theirs = img2img(
        prompt=[prompts[item.label] for item in items],
        image=torch.stack([to_tensor(images.image(item.position)) for item in items]),
        strength=strength,
        num_inference_steps=8,
        guidance_scale=cfg_scale,
        generator=[torch.Generator().manual_seed(item.seed) for item in items],
        output_type="pt",
    ).images
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_steps", [7, 25, 50])
def test_steps_that_run_are_diffusers_img2img_steps(num_steps: int) -> None:
    pipeline = StableDiffusionImg2ImgPipeline(**small_pipeline().components, requires_safety_checker=False)
    pipeline.scheduler.set_timesteps(num_steps)
    for strength in (0.2, 0.33, 0.5, 0.7, 0.95, 1.0):
        _, expected = pipeline.get_timesteps(num_steps, strength, "cpu")
        schedule = StepSchedule.of(num_steps, strength, None, None)
        assert num_steps - schedule.first == expected
        assert schedule.first <= schedule.first_guided < num_steps


@pytest.mark.parametrize(
    ("model", "words"),
    [("nobody/nothing", "hub cannot be reached"), ("{broken}", "no complete Stable Diffusion pipeline")],
)
def test_a_generator_that_cannot_be_loaded_is_one_line(model: str, words: str, pipeline_folder, tmp_path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text((pipeline_folder / "model_index.json").read_text())
    config = compose("run", ["generator=local", f"generator.model={model.format(broken=broken)}"])
    with pytest.raises(UserError) as caught:
        load_generator(config.generator)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def three_images() -> LabelledImages:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    return LabelledImages(
        name="three",
        class_names=("cat", "dog"),
        labels=np.array([0, 1, 0]),
        keys=("a.png", "b.png", "c.png"),
        read=lambda index: Image.fromarray(pixels[index]),
        indices=np.arange(3),
    )


class ZeroEnergy:
    """Stands in where the energy does not matter."""

    class prototypes:
        @staticmethod
        def to(*_: object) -> "type[ZeroEnergy.prototypes]":
            return ZeroEnergy.prototypes

    encoder = staticmethod(lambda images: images.flatten(1))
    encode = encoder

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return images.new_zeros(len(images))

    def of_features(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return features.new_zeros(len(features))

    def nearest_group(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(features), dtype=torch.long)
