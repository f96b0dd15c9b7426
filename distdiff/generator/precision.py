"""The precision that networks run in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from distdiff.generator.kinds import AUTO

ON_CPU = "generator.dtype=auto is float32 on the processor, which is slow in float16 or lacks it (float16 on a GPU)"


def resolved_dtype(dtype: str, on_cpu: bool) -> str:
    """The name of the dtype that `generator.dtype` means on a device.

    >>> resolved_dtype("auto", on_cpu=True), resolved_dtype("auto", on_cpu=False), resolved_dtype("bfloat16", on_cpu=True)
    ('float32', 'float16', 'bfloat16')
    """
    if dtype != AUTO:
        return dtype
    return "float32" if on_cpu else "float16"


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
