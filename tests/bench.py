"""A bench for guidance: a random pipeline, guide and prototypes in float64, and a batch of latents at a guided step."""

from collections.abc import Callable

import torch
from diffusers import DiffusionPipeline
from pipelines import small_pipeline
from torch import nn
from torch.nn import functional as F

from distdiff.classification.networks import ImageClassifier
from distdiff.encoders.guide import GuideEncoder
from distdiff.energy.hierarchical import HierarchicalEnergy
from distdiff.energy.images import ImageEnergy
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.guidance.base import Guidance
from distdiff.guidance.batch import GuidedBatch
from distdiff.guidance.direct import Direct
from distdiff.guidance.freedom import Freedom
from distdiff.guidance.mpgd import Mpgd
from distdiff.guidance.none import Unguided
from distdiff.guidance.tfg import Tfg
from distdiff.guidance.transform import Transform
from distdiff.guidance.transform_official import TransformOfficial
from distdiff.keys import keys_taken_by
from distdiff.prototypes.hierarchical import Prototypes

STEPS, STRENGTH, START, CFG_SCALE = 8, 0.75, 4, 2.0
CLASSES, GROUPS = 3, 2
CLASS_WEIGHT, GROUP_WEIGHT = 0.7, 1.3
PUBLISHED = {"rho": 10.0, "epsilon": 0.2, "period": 2}


def of(method: type[Guidance], **usual: object) -> Callable[..., Guidance]:
    """Makes a method with `usual` values; keys that it does not take are left out, so that tests may mix methods."""
    return lambda **keys: method(
        **{name: value for name, value in (usual | keys).items() if name in keys_taken_by(method)}
    )


METHODS = {
    "none": of(Unguided, start_step=START),
    "direct": of(Direct, start_step=START, rho=2.0),
    "freedom": of(Freedom, start_step=START, rho=2.0, recurrence=2),
    "mpgd": of(Mpgd, start_step=START, rho=2.0),
    "tfg": of(Tfg, start_step=START, rho=2.0, mu=1.0, iterations=2, recurrence=2, gamma=0.1, num_samples=2),
    "transform": of(Transform, start_step=START, **PUBLISHED, init="identity"),
    "transform_random": of(Transform, start_step=START, **PUBLISHED, init="random"),
    "transform_official": of(TransformOfficial, start_step=START, **PUBLISHED, init="random"),
}


def smooth_classifier() -> ImageClassifier:
    """Smooth everywhere, so that finite differences are exact to second order (ReLU and max pooling have kinks)."""
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.Tanh(), nn.Conv2d(8, 16, 5, stride=2), nn.Tanh(), nn.Flatten()
    )
    return ImageClassifier(backbone, 400, CLASSES, input_size=32, mean=0.5, std=0.5)


def random_prototypes(dim: int, dtype: torch.dtype = torch.float64) -> Prototypes:
    """Three classes of two groups, of which one class has only one."""
    groups = F.normalize(torch.randn(CLASSES, GROUPS, dim, dtype=torch.float64), dim=-1)
    present = torch.tensor([[True, True], [True, False], [True, True]])
    return Prototypes(F.normalize(groups.mean(1), dim=-1).to(dtype), groups.to(dtype), present)


class Bench:
    """Everything that one guided step needs, for a batch of any size."""

    def __init__(
        self,
        batch: int = 3,
        dtype: torch.dtype = torch.float64,
        pipeline: Callable[[], DiffusionPipeline] = small_pipeline,
        **options: object,
    ) -> None:
        torch.manual_seed(0)
        self.generator = LatentDiffusion(pipeline().to(dtype), STEPS, CFG_SCALE, 32, **options)
        precision = self.generator.latent_dtype
        self.encoder = GuideEncoder(smooth_classifier()).to(precision)
        self.prototypes = random_prototypes(self.encoder.classifier.feature_dim, precision)
        self.energy = HierarchicalEnergy(self.prototypes, class_weight=CLASS_WEIGHT, group_weight=GROUP_WEIGHT)
        self.labels = torch.arange(batch) % CLASSES
        side = self.generator.network.config.sample_size
        self.latents = torch.randn(batch, 4, side, side, dtype=torch.float64).to(precision)
        self.prompts = self.generator.embed(["a", "b", "c"])
        self.index = STEPS - START

    def batch(self, method: Guidance, members: torch.Tensor | None = None) -> GuidedBatch:
        """The guided batch of some members, with the sampler's and guidance's random numbers at their start."""
        members = torch.arange(len(self.labels)) if members is None else members
        labels = self.labels[members]
        return GuidedBatch(
            self.generator.denoiser(
                self.prompts.select(labels), generators=[torch.Generator().manual_seed(200 + int(i)) for i in members]
            ),
            ImageEnergy(self.encoder, self.energy),
            labels,
            method.schedule(STEPS, STRENGTH),
            [torch.Generator().manual_seed(100 + int(i)) for i in members],
            self.generator.dtype,
        )

    def step(
        self, method: Guidance, members: torch.Tensor | None = None, latents: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One guided step of some members, and their energies."""
        batch = self.batch(method, members)
        latents = self.latents if latents is None else latents
        return method.step(latents if members is None else latents[members], self.index, batch)

    @torch.no_grad()
    def clean(self, latents: torch.Tensor) -> torch.Tensor:
        """ẑ0 of z at the bench's step."""
        return self.batch(METHODS["none"]()).predict(latents, self.index)[1]

    @torch.no_grad()
    def clean_energy(self, clean: torch.Tensor) -> torch.Tensor:
        """E(φ(D(ẑ0)), y), (B,)."""
        return self.batch(METHODS["none"]()).energy(clean)

    def noise(self, member: int, draws: int = 1) -> list[torch.Tensor]:
        """What guidance draws for a member, latent by latent."""
        generator = torch.Generator().manual_seed(100 + member)
        return [torch.randn(4, 8, 8, generator=generator).double() for _ in range(draws)]


def directional(function, at: torch.Tensor, direction: torch.Tensor, h: float = 1e-5) -> torch.Tensor:
    """Central difference of `function` (B values) at `at` along `direction`."""
    return (function(at + h * direction) - function(at - h * direction)) / (2 * h)


def assert_is_gradient(gradient: torch.Tensor, function, at: torch.Tensor) -> None:
    """Oracle: finite differences of `function` along random directions; relative error below 1e-6."""
    for seed in range(3):
        direction = torch.randn(at.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        expected = directional(function, at, direction)
        torch.testing.assert_close((gradient * direction).flatten(1).sum(1), expected, rtol=1e-6, atol=1e-10)
