"""Every guidance method on every scheduler of every family of models, through the whole sampler."""

import numpy as np
import pytest
import torch
from bench import CLASSES, METHODS, random_prototypes, smooth_classifier
from diffusers import DiffusionPipeline
from pipelines import FAMILIES, VALID

from distdiff.encoders.guide import GuideEncoder
from distdiff.expansion.plan import WorkItem
from distdiff.expansion.synthesis import GuidedImg2Img, Synthesized
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.guidance.energy import HierarchicalEnergy, ImageEnergy

NUM_STEPS, STRENGTH = 4, 0.75
OPTIONS = {"start_step": 3, "rho": 30.0, "epsilon": 0.5}


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
    return GuidedImg2Img(
        generator,
        METHODS[method](**OPTIONS | options),
        ImageEnergy(encoder.to(generator.latent_dtype), HierarchicalEnergy(prototypes)),
        generator.encode(sources),
        generator.embed(["a", "b", "c"]),
        seed=0,
    )(items)


def items(copies: int = 1) -> list[WorkItem]:
    return [
        WorkItem(label, copy, 10 * label + copy, STRENGTH, label, str(label), "s.png", f"{label}/{copy}.png")
        for label in range(2)
        for copy in range(copies)
    ]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("family", "scheduler"), VALID)
def test_every_method_guides_every_model_under_every_scheduler(pipelines, encoder, family, scheduler, method) -> None:
    guided = make(pipelines[family], scheduler, encoder, method, items())
    assert guided.images.shape == (2, 3, 32, 32)
    assert torch.isfinite(guided.images).all()
    assert np.isfinite([guided.columns["energy_before"], guided.columns["energy_after"]]).all()
    assert guided.columns["gradient_finite"] == [True, True]
    if method != "none":
        off = {"rho": 0.0, "mu": 0.0, "epsilon": 0.0}
        unguided = make(pipelines[family], scheduler, encoder, method, items(), **off)
        plain = make(pipelines[family], scheduler, encoder, "none", items())
        assert ((guided.images - unguided.images).abs().amax((1, 2, 3)) > 1e-4).all()
        if method != "transform_official":  # it draws its source once for all copies
            torch.testing.assert_close(unguided.images, plain.images, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "scheduler"), VALID)
def test_batch_size_changes_nothing_under_any_scheduler(pipelines, family: str, scheduler: str) -> None:
    """In float64, to 1e-8, through the whole sampler."""
    pipeline = FAMILIES[family]().to(torch.float64)
    torch.manual_seed(1)
    encoder = GuideEncoder(smooth_classifier())
    for method in ("transform_random", "tfg"):
        together = make(pipeline, scheduler, encoder, method, items(copies=2)).images
        alone = make(pipeline, scheduler, encoder, method, items(copies=2)[-1:]).images
        torch.testing.assert_close(together[-1:], alone, atol=1e-8, rtol=0)
