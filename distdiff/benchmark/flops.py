"""Counts floating-point operations, as `torch.utils.flop_counter` does."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def flop_counter() -> FlopCounterMode:
    """A counter of the FLOPs of everything that runs inside its `with` block, attention on the CPU included.

    A multiplication and an addition count as two. Only matrix products, convolutions and attention are counted.
    """
    known = {CPU_ATTENTION: _attention, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward}
    return FlopCounterMode(display=False, custom_mapping=known)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)
