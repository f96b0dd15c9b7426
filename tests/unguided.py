"""Unguided img2img of three small images, whatever their energy."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from distdiff.commands.configuration import load_option
from distdiff.data.images import LabelledImages
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.keys import build
from distdiff.methods.img2img import Img2ImgSampler

PROMPTS = ["a photo of a cat.", "a photo of a dog."]


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


def synthesizer(generator: LatentDiffusion, images: LabelledImages) -> Img2ImgSampler:
    guidance = build(load_option("guidance", "none"))
    return Img2ImgSampler(
        seed=5,
        generator=generator,
        prompts=generator.embed(PROMPTS),
        guidance=guidance,
        image_energy=ZeroEnergy(),
        latents=generator.encode(images.tensors(32, "squash")),
    )


class ZeroEnergy(nn.Module):
    """Stands in for an energy of images where it does not matter."""

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return images.new_zeros(len(images))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)

    def of_features(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return features.new_zeros(len(features))

    def targets(self, images, seed: int) -> torch.Tensor:
        return torch.tensor([image.label for image in images])

    def columns(self, features: torch.Tensor, targets: torch.Tensor) -> dict[str, list]:
        return {}
