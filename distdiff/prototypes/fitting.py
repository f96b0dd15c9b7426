"""Prototypes of images: φ's features of all of them, summarised."""

import itertools

import torch

from distdiff.console.bar import with_progress
from distdiff.data.images import LabelledImages
from distdiff.encoders.base import Encoder
from distdiff.prototypes.hierarchical import Prototypes, fit_prototypes

BATCH = 16


def fit_image_prototypes(
    images: LabelledImages,
    encoder: Encoder,
    size: int,
    fit: str,
    *,
    num_groups: int | str,
    linkage: str,
    **options: int,
) -> Prototypes:
    """Class and group prototypes of `images`, made squares of `size` by `fit`, in the encoder's features.

    `options` are those of `fit_prototypes`. Runs on the encoder's device; holds one batch of images at a time.
    """
    features = image_features(images, encoder, size, fit)
    num_classes = len(images.class_names)
    fitted = fit_prototypes(features, images.labels, num_classes, num_groups, linkage, **options)
    return fitted.described(class_names=list(images.class_names))


@torch.no_grad()
def image_features(images: LabelledImages, encoder: Encoder, size: int, fit: str) -> torch.Tensor:
    """φ of every image, (n, D) on the CPU."""
    device = next(encoder.parameters()).device
    features = []
    pixels = zip(images.stream(size, fit), with_progress(range(len(images)), "prototypes: features"), strict=True)
    while chunk := [image for image, _ in itertools.islice(pixels, BATCH)]:
        features.append(encoder(torch.stack(chunk).to(device)).cpu())
    return torch.cat(features)
