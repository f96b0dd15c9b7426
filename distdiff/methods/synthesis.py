"""What a method builds: a synthesizer, which turns planned items into images."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from distdiff.methods.item import WorkItem

NOT_FINITE, CONSTANT = "the sample holds values that are not finite", "all pixels of the sample are equal"


@dataclass(frozen=True)
class Synthesized:
    """A batch of results: images (B, 3, H, W) in [0, 1], and metadata columns with B values each.

    `failures` maps the position in the batch of each image that must not be kept to the reason.
    """

    images: torch.Tensor
    columns: dict[str, list]
    failures: dict[int, str] = field(default_factory=dict)

    def judged(self) -> "Synthesized":
        """A copy of these results whose `failures` also name the images that are not usable.

        An image is not usable if one of its values is not finite, or if all its pixels are equal after rounding to 8
        bits.
        """
        finite = self.images.isfinite().flatten(1).all(1)
        levels = self.images.nan_to_num().clamp(0, 1).mul(255).round().flatten(2)
        constant = (levels.amax(2) == levels.amin(2)).all(1)
        found = {place: CONSTANT for place in constant.nonzero().flatten().tolist()}
        found |= {place: NOT_FINITE for place in (~finite).nonzero().flatten().tolist()}
        return replace(self, failures=dict(sorted((found | self.failures).items())))


class Synthesizer(nn.Module, ABC):
    """Makes one image for each item; items share a batch only if `group` returns the same value for them.

    `spared` is the number of seconds that were saved so far by using what this process had made for other images.
    """

    spared = 0.0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """In the block, nothing is used that was made for other images, and nothing is kept for others."""
        yield

    def group(self, strength: float | None) -> Hashable:
        """A value that must be the same for all items of a batch. Raises `UserError` if the strength is too small."""
        return 0

    @abstractmethod
    def forward(self, items: Sequence[WorkItem]) -> Synthesized:
        """Makes one image for each item.

        Each image depends on its own item alone, unless the method makes copies together.
        """
