"""Random numbers that depend only on the sample, not on the batch, the rank or the device."""

import hashlib
from collections.abc import Callable, Sequence

import torch


def draw(
    sample: Callable[..., torch.Tensor], shape: Sequence[int], generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """Draws a tensor of `shape` from each generator with the function `sample`, such as `torch.randn`.

    Returns the stacked tensors (B, *shape), float32, on the CPU.
    """
    return torch.stack([sample(tuple(shape), generator=generator) for generator in generators])


def image_seed(seed: int, class_name: str, source: str, copy: int | str, purpose: str = "image") -> int:
    """A 63-bit seed that depends only on the study's seed, the class, the source's key, the copy and `purpose`.

    Each `purpose` has its own random numbers. For example, drawing a random strength does not change an image's noise.
    """
    text = "\0".join(map(str, (seed, class_name, source, copy)))
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=purpose.encode())
    return int.from_bytes(digest.digest(), "big") >> 1
