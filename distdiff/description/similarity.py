"""Finds images that look alike.

A difference hash finds candidate pairs quickly, and the comparison of miniatures confirms or rejects these pairs.
"""

import numpy as np
from PIL import Image

MINIATURE = 16  # pixels a side
EXPOSURE = 0.9  # the share of the mean to subtract; below 1, so that a black page and a white page differ
BLOCK = 1024  # number of hashes that are compared at once with all later hashes
CONFIRMED_AT_ONCE = 100_000  # number of pairs whose miniatures are compared at once
MAX_PAIRS = 1_000_000  # a limit is needed, because all pairs of a set of flat images may be near


def difference_hash(image: Image.Image) -> int:
    """The 64-bit difference hash of an image (dHash, Krawetz 2013).

    Each bit belongs to one of 8 x 8 pairs of horizontal neighbours, and is 1 if the right neighbour is lighter.
    """
    levels = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    return int.from_bytes(np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes(), "big")


def miniature(image: Image.Image) -> np.ndarray:
    """The image squashed to (16, 16, 3) int16, minus nine tenths of each channel's mean.

    The mean is subtracted because it mostly reflects the exposure.
    """
    small = np.asarray(image.resize((MINIATURE, MINIATURE), Image.Resampling.BOX), dtype=np.float32)
    return np.rint(small - EXPOSURE * small.mean(axis=(0, 1))).astype(np.int16)


def near_pairs(
    hashes: np.ndarray, miniatures: np.ndarray, distance: int, difference: float
) -> tuple[np.ndarray, np.ndarray]:
    """The near pairs (m, 2) of images, with the smaller index first, and the Hamming distances (m,) of their hashes.

    `hashes` is (n,) uint64, and `miniatures` is (n, 16, 16, 3) int16. A pair is near if at most `distance` bits of the
    hashes differ and the miniatures differ by at most `difference` pixel levels (0 to 255) on average. The search
    stops soon after `MAX_PAIRS` pairs are found.
    """
    flat = miniatures.reshape(len(miniatures), -1)
    pairs, distances, found = [np.empty((0, 2), np.int64)], [np.empty(0, np.uint8)], 0
    for start in range(0, len(hashes), BLOCK):
        bits = np.bitwise_count(hashes[start : start + BLOCK, None] ^ hashes[None, start:])
        first, second = np.nonzero(np.triu(bits <= distance, k=1))
        for begin in range(0, len(first), CONFIRMED_AT_ONCE):
            a, b = first[begin : begin + CONFIRMED_AT_ONCE], second[begin : begin + CONFIRMED_AT_ONCE]
            alike = _mean_difference(flat, a + start, b + start) <= difference
            pairs.append(np.stack([a[alike], b[alike]], axis=1) + start)
            distances.append(bits[a[alike], b[alike]])
            found += int(alike.sum())
            if found >= MAX_PAIRS:
                return np.concatenate(pairs), np.concatenate(distances)
    return np.concatenate(pairs), np.concatenate(distances)


def _mean_difference(flat: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The mean absolute difference between the miniatures of each pair.

    A thousand pairs are computed at a time, so that the data stay in the CPU cache.
    """
    parts = [
        np.abs(flat[first[begin : begin + 1000]] - flat[second[begin : begin + 1000]]).mean(axis=1)
        for begin in range(0, len(first), 1000)
    ]
    return np.concatenate(parts) if parts else np.empty(0)
