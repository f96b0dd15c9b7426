"""Distances between features: nearest neighbours, and which points lie in which balls."""

from collections.abc import Iterator

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors

from distdiff.metrics.base import Features

SHARED = 5  # neighbours that are found at once, as many as most metrics ask for
KEPT = 2**21  # distances; fewer between two sets are kept for the other metrics
BLOCK = 2**22  # distances that are computed at once
ROUNDING = 1e-7  # relative to the longest vector: the error of distances that are computed with a matrix product
SAME = 1e-5  # relative to the longest vector; features of one image differ by less, whatever batch it was in


def radii(images: Features, num_neighbours: int) -> np.ndarray:
    """The distance (n,) from each image to its k-th nearest other image.

    k is the smaller of `num_neighbours` and the number of other images. A single image has the radius 0.
    """
    most = min(max(num_neighbours, SHARED), len(images) - 1)
    found = images.once(("neighbours", most), lambda: _index(images).kneighbors(images.points, most + 1)[0])
    return found[:, min(num_neighbours, len(images) - 1)]  # the zeroth is the image itself, or a copy of it


def too_few_neighbours(images: Features, num_neighbours: int, kind: str) -> str | None:
    """A remark on a metric whose neighbourhoods have fewer neighbours than `num_neighbours`; None if they have as many."""
    known = len(images) - 1
    if known >= num_neighbours:
        return None
    return (
        f"neighbourhoods of {known:,} instead of {num_neighbours:,} neighbours, all that there are of "
        f"{len(images):,} {kind} images, so they are large"
    )


def nearest(images: Features, others: Features) -> tuple[np.ndarray, np.ndarray]:
    """The position (n,) in `others` of the image that is nearest to each of `images`, and its distance (n,)."""

    def compute() -> tuple[np.ndarray, np.ndarray]:
        positions = _index(others).kneighbors(images.points, 1, return_distance=False)[:, 0]
        # A copy has the distance zero, which the matrix product that found it would round to another number.
        return positions, np.linalg.norm(images.points - others.points[positions], axis=1)

    return images.once_with(others, "nearest", compute)


def distance_blocks(images: Features, others: Features) -> Iterator[tuple[slice, np.ndarray]]:
    """The distances from `images` to `others`, some rows at a time: (which images, their distances (rows, n)).

    The distances of images from themselves are exactly zero.
    """
    if len(images) * len(others) <= KEPT:
        key = ("distances", images is others)
        kept = images.once_with(others, key, lambda: euclidean_distances(images.points, others.points))
        yield slice(0, len(images)), kept
        return
    rows = max(1, BLOCK // len(others))
    for start in range(0, len(images), rows):
        block = slice(start, min(start + rows, len(images)))
        distances = euclidean_distances(images.points[block], others.points)
        if images is others:
            distances[np.arange(len(distances)), np.arange(block.start, block.stop)] = 0
        yield block, distances


def in_balls(centres: Features, radius: np.ndarray, points: Features) -> Iterator[tuple[slice, np.ndarray]]:
    """Which `points` lie in the balls of the given `radius` (n,) around `centres`: (which centres, (rows, points) bool)."""
    margin = ROUNDING * longest(centres, points)
    for rows, distances in distance_blocks(centres, points):
        yield rows, distances <= radius[rows, None] + margin


def longest(*sets: Features) -> float:
    """The length of the longest vector of features."""
    return max(each.once("longest", lambda each=each: _longest(each.points)) for each in sets)


def _longest(points: np.ndarray) -> float:
    return float(np.linalg.norm(points, axis=1).max(initial=0.0))


def _index(images: Features) -> NearestNeighbors:
    return images.once("index", lambda: NearestNeighbors().fit(images.points))
