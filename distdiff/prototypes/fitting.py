"""Computes φ's features of images, and prototypes from these features."""

import itertools
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from distdiff.console.bar import with_progress
from distdiff.data.images import LabelledImages
from distdiff.encoders.base import Encoder
from distdiff.prototypes.clustering import AUTO
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
    **options: int | bool,
) -> Prototypes:
    """Class and group prototypes of `images` in the encoder's feature space.

    `fit` says how images become squares of `size` pixels a side. `options` are further arguments of `fit_prototypes`.
    The features are computed on the encoder's device, with one batch of images in memory at a time.
    """
    features = image_features(images, encoder, size, fit)
    num_classes = len(images.class_names)
    fitted = fit_prototypes(features, images.labels, num_classes, num_groups, linkage, **options)
    return fitted.described(class_names=list(images.class_names))


def prototype_identity(options: DictConfig, labels: np.ndarray, seed: int) -> dict[str, Any]:
    """The `prototype` keys that affect the prototypes of images with these labels.

    `seed` is included if images of a class are drawn, that is, if a class has more than `max_clustered` images.
    """
    identity: dict[str, Any] = {"class_level": options.class_level, "group_level": options.group_level}
    if not options.group_level:
        return identity
    identity |= {"num_groups": options.num_groups, "linkage": options.linkage}
    if options.num_groups == AUTO:
        identity["max_groups"] = options.max_groups
    if options.num_groups != 1 and np.bincount(labels).max() > options.max_clustered:
        identity |= {"max_clustered": options.max_clustered, "seed": seed}
    return identity


@torch.no_grad()
def image_features(images: LabelledImages, encoder: Encoder, size: int, fit: str) -> torch.Tensor:
    """The features φ(x) of every image x, (n, D), on the CPU."""
    features = []
    pixels = zip(images.stream(size, fit), with_progress(range(len(images)), "prototypes: features"), strict=True)
    while chunk := [image for image, _ in itertools.islice(pixels, BATCH)]:
        features.append(encoder(torch.stack(chunk).to(encoder.device)).cpu())
    return torch.cat(features)
