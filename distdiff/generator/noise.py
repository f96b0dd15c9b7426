"""Random numbers that belong to the sample: no batch, rank or device changes them."""

from collections.abc import Callable, Sequence

import torch


def draw(
    sample: Callable[..., torch.Tensor], shape: Sequence[int], generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """One tensor of `shape` from each generator, (B, *shape), float32 on the CPU; `sample` is `torch.randn` or alike."""
    return torch.stack([sample(tuple(shape), generator=generator) for generator in generators])
