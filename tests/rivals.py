"""The guidance methods that compare new images with real ones, for the bench and through the whole sampler."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from bench import CLASSES, Bench, random_prototypes
from diffusers import DiffusionPipeline
from torch.nn import functional as F

from distdiff.commands.configuration import load_option
from distdiff.encoders.base import Encoder
from distdiff.energy.hierarchical import HierarchicalEnergy
from distdiff.energy.images import ImageEnergy
from distdiff.generator.latent_diffusion import LatentDiffusion, Posterior
from distdiff.generator.noise import image_seed
from distdiff.guidance.base import Guidance
from distdiff.guidance.batch import GuidedBatch
from distdiff.guidance.config import REAL_FEATURES, needs_of
from distdiff.guidance.real import RealFeatures, RealLatents
from distdiff.keys import build
from distdiff.methods.img2img import Img2ImgSampler
from distdiff.methods.item import WorkItem
from distdiff.prototypes.exemplars import Exemplars

RIVALS = ("chamfer", "modes", "deviation", "particles", "feedback", "gif")
IN_CLASS = 2  # real images of a class


@dataclass(frozen=True)
class Planned:
    """A new image, as a guidance method plans it."""

    label: int
    class_name: str
    source: str
    copy: int


def planned(label: int, source: int, copy: int) -> Planned:
    return Planned(label, str(label), str(source), copy)


def exemplars(
    features: torch.Tensor, labels: list[int], keys: list[str] | None = None, num_classes: int | None = None
) -> RealFeatures:
    keys = list(map(str, range(len(labels)))) if keys is None else keys
    return RealFeatures(Exemplars(features, np.array(labels), tuple(keys)), num_classes or max(labels) + 1)


def rival(name: str, features: RealFeatures | None = None, latents: RealLatents | None = None, **keys: Any) -> Guidance:
    """The method with the defaults of its YAML file, and `keys`."""
    option = load_option("guidance", name, **keys)
    return build(option, *(features if need == REAL_FEATURES else latents for need in needs_of(option)))


class RealBench(Bench):
    """The bench with random real images, of which class c has those with the numbers 2 c and 2 c + 1."""

    def __init__(self, batch: int = 3, **options: Any) -> None:
        super().__init__(batch, **options)
        labels = [label for label in range(CLASSES) for _ in range(IN_CLASS)]
        drawn = torch.Generator().manual_seed(7)
        size = (len(labels), self.encoder.classifier.feature_dim)
        features = F.normalize(torch.randn(size, generator=drawn, dtype=torch.float64), dim=-1)
        self.real_features = exemplars(features.to(self.energy.dtype), labels)
        means = torch.randn(len(labels), *self.latents.shape[1:], generator=drawn, dtype=torch.float64)
        posterior = Posterior(means.to(self.energy.dtype), torch.zeros_like(means).to(self.energy.dtype))
        self.real_latents = RealLatents(posterior, np.array(labels), list(map(str, range(len(labels)))))
        self.planned = [planned(int(label), IN_CLASS * int(label), i) for i, label in enumerate(self.labels)]

    def rival(self, name: str, **keys: Any) -> Guidance:
        return rival(name, self.real_features, self.real_latents, **keys)

    def batch(self, method: Guidance, members: torch.Tensor | None = None) -> GuidedBatch:
        made = super().batch(method, members)
        chosen = range(len(self.labels)) if members is None else members.tolist()
        aims = method.aims([self.planned[i] for i in chosen], seed=0)
        made.aims = None if aims is None else aims.values
        return made


def items(copies: int = 1, labels: int = 2, strength: float = 0.75) -> list[WorkItem]:
    """Copies of the first real image of each of the first `labels` classes, class by class."""
    return [
        WorkItem(
            *(IN_CLASS * label, copy, image_seed(0, str(label), "s", copy), strength, label, str(label)),
            *(str(IN_CLASS * label), f"{label}/{copy}.png"),
        )
        for label in range(labels)
        for copy in range(copies)
    ]


def sampler(
    pipeline: DiffusionPipeline, scheduler: str, encoder: Encoder, name: str, num_steps: int = 4, **keys: Any
) -> Img2ImgSampler:
    """The whole sampler with this guidance method, and random real images; `none` is no guidance."""
    generator = LatentDiffusion(pipeline, num_steps, 2.0, 32, scheduler)
    encoder = encoder.to(generator.latent_dtype)
    torch.manual_seed(2)
    prototypes = random_prototypes(encoder.feature_dim, generator.latent_dtype)
    labels = [label for label in range(CLASSES) for _ in range(IN_CLASS)]
    sources = torch.rand(len(labels), 3, 32, 32, generator=torch.Generator().manual_seed(3))
    posterior = generator.encode(sources)
    with torch.no_grad():
        features = exemplars(encoder(sources.to(generator.latent_dtype)), labels)
    latents = RealLatents(posterior, np.array(labels), list(map(str, range(len(labels)))))
    return Img2ImgSampler(
        seed=0,
        generator=generator,
        prompts=generator.embed(["a", "b", "c"]),
        guidance=rival(name, features, latents, **keys),
        image_energy=ImageEnergy(encoder, HierarchicalEnergy(prototypes, class_weight=1.0, group_weight=1.0)),
        latents=posterior,
    )
