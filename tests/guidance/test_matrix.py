"""Every guidance method on every scheduler of every family of models, through the whole sampler."""

import numpy as np
import pytest
import torch
from bench import CLASSES, METHODS, random_prototypes, smooth_classifier
from diffusers import DiffusionPipeline
from pipelines import FAMILIES, VALID

from distdiff.encoders.guide import GuideEncoder
from distdiff.energy.hierarchical import HierarchicalEnergy
from distdiff.energy.images import ImageEnergy
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.methods.img2img import Img2ImgSampler
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized

NUM_STEPS, STRENGTH = 4, 0.75
# SDXL under two schedulers only: what a scheduler does with a prediction does not depend on the network that made it.
CASES = [(family, scheduler) for family, scheduler in VALID if family != "sdxl" or scheduler in ("ddim", "euler")]
OPTIONS = {"start_step": 3, "rho": 30.0, "epsilon": 0.5, "iterations": 1, "num_samples": 1}


@pytest.fixture(scope="module")
def pipelines() -> dict[str, DiffusionPipeline]:
    return {name: build() for name, build in FAMILIES.items()}


@pytest.fixture(scope="module")
def encoder() -> GuideEncoder:
    torch.manual_seed(1)
    return GuideEncoder(smooth_classifier())


def make(
    pipeline: DiffusionPipeline, scheduler: str, encoder: GuideEncoder, method: str, items: list[WorkItem], **options
) -> Synthesized:
    generator = LatentDiffusion(pipeline, NUM_STEPS, 2.0, 32, scheduler)
    torch.manual_seed(2)
    prototypes = random_prototypes(encoder.classifier.feature_dim, generator.latent_dtype)
    sources = torch.rand(CLASSES, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    return Img2ImgSampler(
        seed=0,
        generator=generator,
        prompts=generator.embed(["a", "b", "c"]),
        guidance=METHODS[method](**OPTIONS | options),
        image_energy=ImageEnergy(
            encoder.to(generator.latent_dtype), HierarchicalEnergy(prototypes, class_weight=1.0, group_weight=1.0)
        ),
        latents=generator.encode(sources),
    )(items)


def items(copies: int = 1) -> list[WorkItem]:
    return [
        WorkItem(label, copy, 10 * label + copy, STRENGTH, label, str(label), "s.png", f"{label}/{copy}.png")
        for label in range(2)
        for copy in range(copies)
    ]


@pytest.mark.parametrize(("family", "scheduler"), CASES)
def test_every_method_guides_every_model_under_its_schedulers(pipelines, encoder, family: str, scheduler: str) -> None:
    """Every image moves, and the final energy of four images falls on average; of each one, under several guided steps.

    Compared with the same images made with the same random numbers. `transform_official` need not lower this energy: it
    follows another one, of features that are not normalised.
    """

    def of(method: str, **options: float) -> Synthesized:
        return make(pipelines[family], scheduler, encoder, method, items(copies=2), **options)

    unguided = dict.fromkeys(METHODS, of("none"))
    unguided["transform_official"] = of("transform_official", epsilon=0.0)  # draws its source once for all copies
    for method in ("freedom", "tfg", "transform_random"):  # which draw random numbers that move images too
        unguided[method] = of(method, rho=1e-12, mu=1e-12)
    for method in METHODS:
        made = of(method, rho=5.0, mu=5.0)
        assert made.images.shape == (4, 3, 32, 32), method
        assert torch.isfinite(made.images).all(), method
        assert np.isfinite([made.columns["energy_before"], made.columns["energy_after"]]).all(), method
        assert all(made.columns["gradient_finite"]), method
        moved = (made.images - unguided[method].images).abs().amax((1, 2, 3))
        assert (moved == 0).all() if method == "none" else (moved > 1e-4).all(), method
        fall = np.subtract(unguided[method].columns["energy_after"], made.columns["energy_after"])
        if method not in ("none", "transform_official"):
            assert fall.mean() > 1e-3, method  # of an energy of 2.8
        if method in ("direct", "freedom", "mpgd", "tfg"):
            assert (fall > 0).all(), method


@pytest.mark.parametrize(("family", "scheduler"), VALID)
def test_guidance_that_is_off_is_no_guidance_under_any_scheduler(pipelines, encoder, family, scheduler) -> None:
    """At ρ = 0 (ε = 0) through the whole sampler: multistep states, corrector and random streams included."""
    plain = make(pipelines[family], scheduler, encoder, "none", items())
    for method in ("direct", "freedom", "tfg", "transform_random"):
        off = make(pipelines[family], scheduler, encoder, method, items(), rho=0.0, mu=0.0, epsilon=0.0)
        torch.testing.assert_close(off.images, plain.images, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "scheduler"), CASES)
def test_batch_size_changes_nothing(pipelines, family: str, scheduler: str) -> None:
    """In float64, to 1e-8, through the whole sampler."""
    pipeline = FAMILIES[family]().to(torch.float64)
    torch.manual_seed(1)
    encoder = GuideEncoder(smooth_classifier())
    for method in ("transform_random", "tfg"):
        together = make(pipeline, scheduler, encoder, method, items(copies=2), num_samples=2).images
        alone = make(pipeline, scheduler, encoder, method, items(copies=2)[-1:], num_samples=2).images
        torch.testing.assert_close(together[-1:], alone, atol=1e-8, rtol=0)
