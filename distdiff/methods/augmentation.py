"""Augmentation: copies made by an augmentation policy alone, the usual alternative to a diffusion model."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import nn

from distdiff.data.cache.squares import Squares
from distdiff.data.pixels import to_floats
from distdiff.keys import Limits
from distdiff.methods.base import Method
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized, Synthesizer


class Augmented(Method):
    """Makes each copy by applying the augmentation `policy`, an option of `conf/augmentation`, to its source."""

    def __init__(self, *, policy: Annotated[str, Limits(option_of="augmentation")]) -> None:
        self.policy = policy

    def strength(self, planned: float) -> None:
        return None

    def synthesizer(self, squares: Squares, policy: nn.Module) -> Synthesizer:
        return Augmentation(policy, squares)


class Augmentation(Synthesizer):
    """Applies the policy to each item's source. A source is read only when it is needed, so that none stays in memory."""

    def __init__(self, policy: nn.Module, squares: Squares) -> None:
        super().__init__()
        self.policy = policy
        self.squares = squares

    @torch.no_grad()
    def forward(self, items: Sequence[WorkItem]) -> Synthesized:
        images = []
        for item in items:  # kornia draws from the global generator, so each image is made alone, under its own seed
            source = to_floats(self.squares[item.position])[None]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(item.seed)
                images.append(self.policy(source)[0])
        return Synthesized(torch.stack(images).clamp(0, 1), {})
