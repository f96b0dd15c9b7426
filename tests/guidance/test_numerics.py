"""Guidance in half precision, with broken gradients, with checkpointing, and with a small decoder."""

import pytest
import torch
from bench import CLASSES, METHODS, Bench, random_prototypes, smooth_classifier
from diffusers import AutoencoderTiny
from pipelines import small_pipeline

from distdiff.encoders.guide import GuideEncoder
from distdiff.energy.hierarchical import HierarchicalEnergy
from distdiff.energy.images import ImageEnergy
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.noise import image_seed
from distdiff.guidance import gradient
from distdiff.methods.img2img import Img2ImgSampler
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized

HALF = [torch.float16, torch.bfloat16]


def direct_gradient(dtype: torch.dtype, weight: float) -> torch.Tensor:
    """The direct update's gradient (3, C, h, w) of an energy scaled by `weight`, divided by it again."""
    bench = Bench(dtype=dtype)
    bench.energy = HierarchicalEnergy(bench.prototypes, class_weight=weight, group_weight=weight)
    plain, _ = bench.step(METHODS["none"]())
    guided, _ = bench.step(METHODS["direct"](rho=1 / weight))
    return plain - guided


def relative_error(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return ((ours.double() - exact.double()).norm() / exact.double().norm()).item()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("weight", [1e-6, 1.0, 1e4])
def test_gradients_survive_half_precision_whatever_their_size(dtype: torch.dtype, weight: float) -> None:
    """Oracle: the same weights in float32; half precision keeps 11 bits (float16) or 8 (bfloat16)."""
    error = relative_error(direct_gradient(dtype, weight), direct_gradient(torch.float32, weight))
    assert error < (0.02 if dtype == torch.float16 else 0.15)


def test_without_loss_scaling_small_gradients_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient, "LOSS_SCALES", {})
    assert relative_error(direct_gradient(torch.float16, 1e-6), direct_gradient(torch.float32, 1e-6)) > 0.5


@pytest.mark.parametrize("dtype", HALF)
def test_energy_and_latents_stay_in_float32(dtype: torch.dtype) -> None:
    bench = Bench(dtype=dtype)
    for name, method in METHODS.items():
        latents, energies = bench.step(method())
        assert (latents.dtype, energies.dtype) == (torch.float32, torch.float32), name
        assert torch.isfinite(latents).all(), name


def expansion(
    guidance: str, encoder: GuideEncoder, labels: list[int], epsilon: float = 0.2, **options: object
) -> tuple[Synthesized, Img2ImgSampler]:
    """One image a label through the whole sampler, under the bench's small pipeline."""
    torch.manual_seed(0)
    generator = LatentDiffusion(small_pipeline().to(torch.float64), 8, 1.0, 32, **options)
    encoder = encoder.to(generator.latent_dtype)
    prototypes = random_prototypes(encoder.classifier.feature_dim, generator.latent_dtype)
    sources = torch.rand(CLASSES, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    synthesizer = Img2ImgSampler(
        seed=0,
        generator=generator,
        prompts=generator.embed(["a", "b", "c"]),
        guidance=METHODS[guidance](epsilon=epsilon),
        image_energy=ImageEnergy(encoder, HierarchicalEnergy(prototypes, class_weight=1.0, group_weight=1.0)),
        latents=generator.encode(sources),
    )
    items = [
        WorkItem(label, 0, image_seed(0, str(label), "s", 0), 0.75, label, str(label), "s", f"{label}/s.png")
        for label in labels
    ]
    return synthesizer(items), synthesizer


@pytest.mark.parametrize("guidance", [name for name in METHODS if name != "none"])
def test_a_sample_with_a_broken_gradient_goes_on_unguided_and_is_marked(guidance: str) -> None:
    """Its neighbours are guided as if it were not there; it is what `none` would have made."""
    torch.manual_seed(1)
    classifier = smooth_classifier()
    off = "transform_official" if guidance == "transform_official" else "none"  # the former draws its source otherwise
    plain, _ = expansion(off, GuideEncoder(classifier), [0, 1, 2], epsilon=0.0)
    guided, _ = expansion(guidance, GuideEncoder(classifier), [0, 1, 2])
    assert guided.columns["gradient_finite"] == [True, True, True]
    assert all((guided.images[i] - plain.images[i]).abs().max() > 1e-6 for i in range(3))

    class Broken(GuideEncoder):
        def extract(self, inputs: torch.Tensor) -> torch.Tensor:
            features = super().extract(inputs)
            factor = torch.ones(len(features), 1, dtype=features.dtype)
            factor[1] = torch.nan
            return features * factor

    broken, _ = expansion(guidance, Broken(classifier), [0, 1, 2])
    assert broken.columns["gradient_finite"] == [True, False, True]
    for i in (0, 2):
        torch.testing.assert_close(broken.images[i], guided.images[i], atol=1e-8, rtol=0)
    torch.testing.assert_close(broken.images[1], plain.images[1], atol=1e-8, rtol=0)


def test_checkpointing_changes_no_gradient_and_works_in_guided_steps_alone() -> None:
    calls = []

    def count(generator: LatentDiffusion) -> None:
        for part in generator.modules():
            if hasattr(part, "_gradient_checkpointing_func"):
                checkpoint = part._gradient_checkpointing_func

                def counted(*arguments: object, checkpoint=checkpoint) -> object:
                    calls.append(1)
                    return checkpoint(*arguments)

                part._gradient_checkpointing_func = counted

    plain, saving = Bench(), Bench(gradient_checkpointing=True)
    count(saving.generator)
    saving.step(METHODS["none"]())
    assert not calls
    expected, _ = plain.step(METHODS["direct"]())
    ours, _ = saving.step(METHODS["direct"]())
    assert calls
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)
    calls.clear()
    saving.generator.checkpoint_gradients(False)
    saving.step(METHODS["direct"]())
    assert not calls


def tiny_decoder() -> AutoencoderTiny:
    torch.manual_seed(5)
    return AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )


def test_a_small_decoder_guides_and_the_autoencoder_makes_the_image() -> None:
    decoder = tiny_decoder().double()
    torch.manual_seed(1)
    classifier = smooth_classifier()
    with_tiny, synthesizer = expansion("direct", GuideEncoder(classifier), [0, 1, 2], guidance_decoder=decoder)
    without, _ = expansion("direct", GuideEncoder(classifier), [0, 1, 2])
    assert (with_tiny.images - without.images).abs().max() > 1e-6

    decoded = []
    synthesizer.generator.vae.decoder.register_forward_hook(lambda *_: decoded.append(1))
    items = [WorkItem(0, 0, 7, 0.75, 0, "0", "s", "0/s.png")]
    synthesizer(items)
    assert len(decoded) == 1

    latents = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    expected = decoder.decode(latents).sample / 2 + 0.5
    torch.testing.assert_close(synthesizer.generator.decode_for_guidance(latents), expected)
