"""What a method builds: something that turns planned images into images."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from distdiff.methods.item import WorkItem

NOT_FINITE, CONSTANT = "the sample holds values that are not finite", "all pixels of the sample are equal"


@dataclass(frozen=True)
class Synthesized:
    """A batch of results: images (B, 3, H, W) in [0, 1], and columns of metadata, a list of B values each.

    `failures`: by position, why an image is not to be kept.
    """

    images: torch.Tensor
    columns: dict[str, list]
    failures: dict[int, str] = field(default_factory=dict)

    def judged(self) -> "Synthesized":
        """The same, with samples that are not finite, or of a single colour once in 255 levels, among the failures."""
        finite = self.images.isfinite().flatten(1).all(1)
        levels = self.images.nan_to_num().clamp(0, 1).mul(255).round().flatten(2)
        constant = (levels.amax(2) == levels.amin(2)).all(1)
        found = {place: CONSTANT for place in constant.nonzero().flatten().tolist()}
        found |= {place: NOT_FINITE for place in (~finite).nonzero().flatten().tolist()}
        return replace(self, failures=dict(sorted((found | self.failures).items())))


class Synthesizer(nn.Module, ABC):
    """Makes one image an item; items share a batch only where `group` gives them the same."""

    def group(self, strength: float | None) -> Hashable:
        """What items of this strength must agree in to share a batch; raises `UserError` for a strength that is too small."""
        return 0

    @abstractmethod
    def forward(self, items: Sequence[WorkItem]) -> Synthesized:
        """The images of these items, each of which depends on its item alone unless the method makes copies together."""
