"""The precision that networks run in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def whole_float32(dtype: torch.dtype) -> Iterator[None]:
    """A context in which CUDA, like the CPU, computes the convolutions of float32 networks in full float32.

    By default cuDNN rounds the inputs of convolutions to TF32 (10 bits of mantissa). The batch size then changes the
    images: under `transform` guidance, one image in five changes by more than 1 of 255 levels
    (experiments/results/gpu.md). If `dtype` is not float32, the context changes nothing.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = before and dtype != torch.float32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
