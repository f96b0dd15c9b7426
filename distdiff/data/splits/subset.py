"""Chooses the part of the training images that is used, independently of the study's seed."""

from collections.abc import Sequence

import numpy as np

from distdiff.data.images import LabelledImages
from distdiff.data.splits.carving import FIXED
from distdiff.errors import UserError


def reduced(
    images: LabelledImages, indices: Sequence[int] | None, fraction: float = 1, max_images: int | None = None
) -> LabelledImages:
    """Keeps the images at `indices`, of these `fraction` of every class, and of those at most `max_images`.

    The last step keeps images of every class in proportion to its size. Raises `UserError` if `indices` or `max_images`
    does not fit the images.
    """
    if indices is not None:
        images = _at(images, list(indices))
    if fraction < 1:
        counts = np.bincount(images.labels, minlength=len(images.class_names))
        images = _draw(images, np.where(counts, np.maximum(1, np.rint(counts * fraction)), 0).astype(int))
    if max_images is not None and max_images < len(images):
        images = _draw(images, _shares(images, max_images))
    return images


def _at(images: LabelledImages, indices: list[int]) -> LabelledImages:
    if len(set(indices)) < len(indices) or not indices:
        raise UserError("dataset.indices is not allowed: a list of different positions in the training images")
    if max(indices) >= len(images):
        raise UserError(
            f"dataset.indices={max(indices)} is not allowed: there are {len(images):,} training images, from 0"
        )
    chosen = images.select(indices)
    lacking = len(images.class_names) - len(np.unique(chosen.labels))
    if lacking:
        raise UserError(f"dataset.indices: {lacking} of {len(images.class_names)} classes have no image among them")
    return chosen


def _shares(images: LabelledImages, total: int) -> np.ndarray:
    """The number of images to take from each class, by largest remainder.

    The numbers add up to `total`, and at least one image is taken from each class.
    """
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    if total < np.count_nonzero(counts):
        raise UserError(
            f"dataset.max_images={total} is not allowed: at least one of each of the {np.count_nonzero(counts)} classes"
        )
    exact = counts * (total / counts.sum())
    shares = np.where(counts, np.maximum(1, np.floor(exact)), 0).astype(int)
    while shares.sum() != total:
        short = shares.sum() < total
        gap = np.where(shares < counts if short else shares > 1, exact - shares, -np.inf if short else np.inf)
        shares[gap.argmax() if short else gap.argmin()] += 1 if short else -1
    return shares


def _draw(images: LabelledImages, counts: np.ndarray) -> LabelledImages:
    chosen = [
        np.random.default_rng([FIXED, label]).permutation(np.flatnonzero(images.labels == label))[:count]
        for label, count in enumerate(counts)
    ]
    return images.select(np.sort(np.concatenate(chosen)))
