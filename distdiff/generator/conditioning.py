"""Embedded prompts: the tensors that tell a denoising network what to draw."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class Conditioning:
    """Embeddings of n prompts.

    `tokens` (n, length, width) has one for each token, `pooled` (n, pooled width) one for each prompt. `pooled` is
    None for a network that takes no pooled embeddings.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, positions: torch.Tensor) -> "Conditioning":
        return self._map(lambda tensor: tensor[positions.to(tensor.device)])

    def to(self, *where: torch.device | torch.dtype) -> "Conditioning":
        return self._map(lambda tensor: tensor.to(*where))

    def expand(self, count: int) -> "Conditioning":
        """Repeats the conditioning of a single prompt (n = 1) for `count` samples."""
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
    """Embedded prompts: `positive` has one entry for each prompt, and `negative` has a single entry (n = 1).

    `negative` is None without classifier-free guidance. `of_class[y]` holds the indices of the prompts of class y;
    `of_class` is None if there is one prompt for each class, in the order of classes. `sentences` holds the prompts as
    text; it is None if the text is not known.
    """

    positive: Conditioning
    negative: Conditioning | None
    of_class: tuple[tuple[int, ...], ...] | None = None
    sentences: tuple[str, ...] | None = None

    def first_of(self, labels: torch.Tensor) -> "Prompts":
        """The first prompt of each of the classes `labels` (B,), as `select` gives it."""
        if self.of_class is None:
            return self.select(labels)
        return self.select(torch.tensor([own[0] for own in self.of_class])[labels])

    def select(self, positions: torch.Tensor) -> "Prompts":
        """The embedded prompts at the indices `positions`, without `of_class` and `sentences`."""
        return Prompts(self.positive.select(positions), self.negative)

    def save(self, path: Path) -> None:
        """Writes the tensors as a safetensors file, without `of_class` and `sentences`."""
        tensors = {f"{name}.{part}": tensor for name, part, tensor in self._named_tensors()}
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> "Prompts":
        """Reads a file that `save` wrote; puts the tensors on the CPU."""
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in load_file(path).items():
            owner, part = name.split(".")
            parts.setdefault(owner, {})[part] = tensor
        negative = Conditioning(**parts["negative"]) if "negative" in parts else None
        return cls(Conditioning(**parts["positive"]), negative)

    def tensors(self) -> list[torch.Tensor]:
        """The embeddings of the positive prompts, then those of the negative one, if there is one."""
        return [tensor for *_, tensor in self._named_tensors()]

    def _named_tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        for name, conditioning in (("positive", self.positive), ("negative", self.negative)):
            for part in ("tokens", "pooled"):
                tensor = getattr(conditioning, part, None)
                if tensor is not None:
                    yield name, part, tensor

    def to(self, *where: torch.device | torch.dtype) -> "Prompts":
        return replace(
            self,
            positive=self.positive.to(*where),
            negative=None if self.negative is None else self.negative.to(*where),
        )
