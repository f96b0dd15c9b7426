"""Max pooling that is fast on a CPU too."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class MaxPool2x2(nn.Module):
    """`nn.MaxPool2d(2)` of (B, C, H, W), with equal values and gradients unless a value is NaN.

    PyTorch's kernel for contiguous values on a CPU is not vectorised. Comparing whole tensors is faster: for values of
    shape (32, 64, 16, 16) on one thread, the forward pass takes 0.6 instead of 2.8 ms, 0.2 ms without gradients, and the
    backward pass 0.8 instead of 0.2 ms.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        height, width = values.shape[-2:]
        if values.device.type == "cpu" and values.is_contiguous() and height % 2 == width % 2 == 0:
            return _LargestOfFour.apply(values)
        return F.max_pool2d(values, 2)


class _LargestOfFour(torch.autograd.Function):
    """Of equal values, the first in row-major order gets the gradient, as in PyTorch."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = values.shape
        if not context.needs_input_grad[0]:
            rows = values.view(count, channels, height // 2, 2, width)
            pairs = torch.maximum(rows[:, :, :, 0], rows[:, :, :, 1]).unflatten(-1, (-1, 2))
            return torch.maximum(pairs[..., 0], pairs[..., 1])
        windows = values.view(count, channels, height // 2, 2, width // 2, 2)
        a, b, c, d = (windows[:, :, :, row, :, column] for row in (0, 1) for column in (0, 1))
        upper, lower = torch.maximum(a, b), torch.maximum(c, d)
        context.save_for_backward(b > a, d > c, lower > upper)
        context.shape = values.shape
        return torch.maximum(upper, lower)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        upper_right, lower_right, is_lower = context.saved_tensors
        height, width = context.shape[-2:]
        is_right = upper_right ^ (is_lower & (upper_right ^ lower_right))
        rows, columns = (torch.arange(0, size, 2, device=gradient.device) for size in (height, width))
        first = width * rows.unsqueeze(1) + columns  # the index of each window's first value in the flattened (H, W)
        largest = (first + is_right).add_(is_lower, alpha=width)
        like = gradient.new_empty(context.shape)  # only its shape is read
        return torch.ops.aten.max_pool2d_with_indices_backward(
            gradient, like, [2, 2], [2, 2], [0, 0], [1, 1], False, largest
        )
