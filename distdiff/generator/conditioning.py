"""What prompts become: the tensors that tell a denoising network what to draw."""

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Conditioning:
    """Token embeddings (n, tokens, width), and pooled embeddings (n, width) where the network takes them."""

    tokens: torch.Tensor
    pooled: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, positions: torch.Tensor) -> "Conditioning":
        return self._map(lambda tensor: tensor[positions.to(tensor.device)])

    def to(self, *where: torch.device | torch.dtype) -> "Conditioning":
        return self._map(lambda tensor: tensor.to(*where))

    def expand(self, count: int) -> "Conditioning":
        """One conditioning for `count` samples."""
        return self._map(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    def followed_by(self, other: "Conditioning") -> "Conditioning":
        pooled = None if self.pooled is None else torch.cat([self.pooled, other.pooled])
        return Conditioning(torch.cat([self.tokens, other.tokens]), pooled)

    def _map(self, function) -> "Conditioning":
        return replace(
            self, tokens=function(self.tokens), pooled=None if self.pooled is None else function(self.pooled)
        )


@dataclass(frozen=True)
class Prompts:
    """One conditioning a prompt, and the one for classifier-free guidance (n = 1) where that is on.

    `of_class[y]` are the numbers of the prompts of class y; None where there is one a class, in order.
    """

    positive: Conditioning
    negative: Conditioning | None
    of_class: tuple[tuple[int, ...], ...] | None = None

    def select(self, positions: torch.Tensor) -> "Prompts":
        """The prompts of a batch, by number."""
        return Prompts(self.positive.select(positions), self.negative)

    def to(self, *where: torch.device | torch.dtype) -> "Prompts":
        return replace(
            self,
            positive=self.positive.to(*where),
            negative=None if self.negative is None else self.negative.to(*where),
        )
