"""Finds images that look alike: a difference hash finds candidates quickly, miniatures confirm them."""

import numpy as np
from PIL import Image

MINIATURE = 16  # pixels a side
EXPOSURE = 0.9  # the share of the mean to subtract; not 1, so that a black and a white page still differ
BLOCK = 1024  # hashes that are compared with all later ones at once
CONFIRMED_AT_ONCE = 100_000  # pairs whose miniatures are compared at once
MAX_PAIRS = 1_000_000  # a limit is needed, because all pairs of a set of flat images may be near


def difference_hash(image: Image.Image) -> int:
    """64 bits, one for each of 8 x 8 pairs of horizontal neighbours: 1 if the right one is lighter (dHash, Krawetz 2013)."""
    levels = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    return int.from_bytes(np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes(), "big")


def miniature(image: Image.Image) -> np.ndarray:
    """(16, 16, 3) int16: the squashed image minus nine tenths of each channel's mean, which mostly reflects exposure."""
    small = np.asarray(image.resize((MINIATURE, MINIATURE), Image.Resampling.BOX), dtype=np.float32)
    return np.rint(small - EXPOSURE * small.mean(axis=(0, 1))).astype(np.int16)


def near_pairs(
    hashes: np.ndarray, miniatures: np.ndarray, distance: int, difference: float
) -> tuple[np.ndarray, np.ndarray]:
    """(pairs (m, 2) with the smaller index first, their Hamming distances (m,)), at most about `MAX_PAIRS` of them.

    `hashes` (n,) uint64, `miniatures` (n, 16, 16, 3) int16. A pair is near if at most `distance` bits of the hashes differ
    and the miniatures differ by at most `difference` levels on average.
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
    """Mean absolute difference of each pair, computed for a thousand pairs at a time to stay in the CPU cache."""
    parts = [
        np.abs(flat[first[begin : begin + 1000]] - flat[second[begin : begin + 1000]]).mean(axis=1)
        for begin in range(0, len(first), 1000)
    ]
    return np.concatenate(parts) if parts else np.empty(0)
