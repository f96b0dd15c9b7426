"""Which of the real and synthetic images are drawn for training, in which order and how often.

`parts` are sets of images: first the real ones, then synthetic ones. Images are numbered through all sets.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import RandomSampler, Sampler, WeightedRandomSampler

from distdiff.classification.config import PROBABILITY, REPLACE
from distdiff.data.images import LabelledImages


def image_sampler(
    parts: Sequence[LabelledImages], count: int, seed: int, mixing: str, synthetic_probability: float | None
) -> Sampler[int]:
    """Draws `count` images. With one set of images, every image is drawn equally often, whatever the mixing is."""
    generator = torch.Generator().manual_seed(seed)
    real, total = len(parts[0]), sum(map(len, parts))
    if total > real and mixing == PROBABILITY:
        # Real and synthetic images come at a fixed ratio, which does not depend on the number of images of each kind.
        weights = torch.full((total,), (1 - synthetic_probability) / real)
        weights[real:] = synthetic_probability / (total - real)
        return WeightedRandomSampler(weights, count, generator=generator)
    if total > real and mixing == REPLACE:
        originals = RandomSampler(range(real), num_samples=count, generator=generator)
        return ReplacingSampler(originals, replacements(parts), synthetic_probability, seed)
    return RandomSampler(range(total), num_samples=count, generator=generator)


class ReplacingSampler(Sampler[int]):
    """Replaces each image that `originals` draws, with `probability`, by one of its `replacements`.

    Each of the replacements is as likely as the others (Trabucco et al., 2024, DA-Fusion, section 3.4). An image
    without replacements stays.
    """

    def __init__(
        self, originals: Sampler[int], replacements: Sequence[Sequence[int]], probability: float, seed: int
    ) -> None:
        self.originals, self.replacements = originals, replacements
        self.probability, self.seed = probability, seed

    def __len__(self) -> int:
        return len(self.originals)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng(self.seed)  # of its own: the originals do not depend on the probability
        for original in self.originals:
            chance, choice = random.random(2)
            others = self.replacements[original]
            yield others[int(choice * len(others))] if others and chance < self.probability else original


def replacements(parts: Sequence[LabelledImages]) -> list[list[int]]:
    """The synthetic images that may replace each real image: those made from it or, if there are none, from its class."""
    real, by_source, by_class = parts[0], defaultdict(list), defaultdict(list)
    number = len(real)
    for part in parts[1:]:
        for position, label in enumerate(part.labels.tolist()):
            by_class[label].append(number)
            for source in part.sources[position] if part.sources is not None else ():
                by_source[source].append(number)
            number += 1
    return [
        by_source.get(name) or by_class[label] for name, label in zip(real.names, real.labels.tolist(), strict=True)
    ]


def expected_shares(parts: Sequence[LabelledImages], mixing: str, synthetic_probability: float | None) -> np.ndarray:
    """The share of each image among the images that are drawn in a long training, (n,) float64."""
    real, total = len(parts[0]), sum(map(len, parts))
    shares = np.full(total, 1 / total)
    if total > real and mixing == PROBABILITY:
        shares[:real] = (1 - synthetic_probability) / real
        shares[real:] = synthetic_probability / (total - real)
    if total > real and mixing == REPLACE:
        shares[:real], shares[real:] = 1 / real, 0
        for original, others in enumerate(replacements(parts)):
            if others:
                shares[original] -= synthetic_probability / real
                np.add.at(shares, others, synthetic_probability / real / len(others))
    return shares


def class_shares(parts: Sequence[LabelledImages], shares: np.ndarray) -> np.ndarray:
    """The share of each class among images that are drawn with `shares` (n,); a soft label counts for all its classes."""
    found = np.zeros(len(parts[0].class_names))
    start = 0
    for part in parts:
        own = shares[start : start + len(part)]
        start += len(part)
        if part.soft is None:
            np.add.at(found, part.labels, own)
        else:
            np.add.at(found, part.soft.classes, part.soft.weights * own[:, None])
    return found
