"""Mixup of real images of two classes: pixels and labels are averaged with the same weights."""

from collections.abc import Sequence

import numpy as np
import torch

from distdiff.data.cache.squares import Squares
from distdiff.data.pixels import to_floats
from distdiff.data.soft_labels import SoftLabel, soft_label
from distdiff.keys import Positive
from distdiff.methods.base import Method
from distdiff.methods.item import WorkItem
from distdiff.methods.sources import Sources
from distdiff.methods.synthesis import Synthesized, Synthesizer


class Mix(Method):
    """Makes x = λ x_i + (1 − λ) x_j with label λ y_i + (1 − λ) y_j (mixup, Zhang et al., 2018); x_j is of another class.

    λ' ~ Beta(α, α) and λ = max(λ', 1 − λ'), so that the source x_i weighs at least as much as its partner x_j. The
    image's own seed draws both λ and x_j. If there is only one class, x_j is an image of that class.
    """

    num_sources = 2

    def __init__(self, *, alpha: Positive) -> None:
        self.alpha = alpha

    def strength(self, planned: float) -> None:
        return None

    def partners(self, item: WorkItem, sources: Sources, seed: int) -> tuple[int, ...]:
        label = sources.labels[item.position]
        count = sources.num_outside(label)
        if count == 0:
            return super().partners(item, sources, seed)
        return (sources.outside(label, item.seed_for(seed, "partner") % count),)

    def label(self, item: WorkItem, sources: Sources, seed: int) -> SoftLabel:
        weight = self.weight(item, seed)
        own, other = (sources.labels[position] for position in (item.position, *item.partners))
        return soft_label({own: 1.0}) if own == other else soft_label({own: weight, other: 1 - weight})

    def weight(self, item: WorkItem, seed: int) -> float:
        """λ. It is always greater than 1/2, so that the source's class is the heaviest."""
        drawn = np.random.default_rng(item.seed_for(seed, "weight")).beta(self.alpha, self.alpha)
        return float(max(drawn, 1 - drawn, 0.5 + 1e-6))

    def synthesizer(self, seed: int, squares: Squares) -> Synthesizer:
        return PixelMixer(self, seed, squares)


class PixelMixer(Synthesizer):
    """Averages the pixels of an item's source and partner."""

    def __init__(self, method: Mix, seed: int, squares: Squares) -> None:
        super().__init__()
        self.method, self.seed, self.squares = method, seed, squares

    def forward(self, items: Sequence[WorkItem]) -> Synthesized:
        images = []
        for item in items:
            weight = self.method.weight(item, self.seed)
            source, partner = (to_floats(self.squares[position]) for position in (item.position, *item.partners))
            images.append(weight * source + (1 - weight) * partner)
        return Synthesized(torch.stack(images), {})
