"""Constant tensors, each copied to a device once: a copy from the CPU would wait for the device each time."""

from functools import lru_cache

import torch


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """`values` as a tensor (n,), which is shared and must not be changed in place.

    It may take part in gradients even if it is first needed in inference mode.
    """
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=dtype)
