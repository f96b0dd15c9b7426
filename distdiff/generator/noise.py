"""Random numbers that belong to the sample, independent of batch, rank and device."""

import hashlib
from collections.abc import Callable, Sequence

import torch


def draw(
    sample: Callable[..., torch.Tensor], shape: Sequence[int], generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """One tensor of `shape` from each generator, (B, *shape), float32 on the CPU; `sample` is, for instance, `torch.randn`."""
    return torch.stack([sample(tuple(shape), generator=generator) for generator in generators])


def image_seed(seed: int, class_name: str, source: str, copy: int | str, purpose: str = "image") -> int:
    """A 63-bit seed that depends only on the study's seed, the class, the source's key, the copy and `purpose`.

    `purpose` separates streams: choosing a strength must not shift the noise that follows.
    """
    text = "\0".join(map(str, (seed, class_name, source, copy)))
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=purpose.encode())
    return int.from_bytes(digest.digest(), "big") >> 1
