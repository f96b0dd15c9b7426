"""Our max pooling has PyTorch's values and gradients."""

import pytest
import torch
from torch import nn

from distdiff.classification.pooling import MaxPool2x2

SHAPES = [(3, 5, 8, 6), (2, 3, 16, 16), (2, 3, 7, 6), (2, 3, 6, 7), (2, 3, 5, 5), (0, 3, 4, 4)]


def pooled(pool: nn.Module, values: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What `pool` makes of `values`, and the gradient of its sum, weighted by `weights`."""
    values = values.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    found = pool(values)
    return found.detach(), *torch.autograd.grad((found * weights).sum(), values)


def compare(values: torch.Tensor) -> None:
    expected = nn.MaxPool2d(2)(values)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(values.dtype)
    assert torch.equal(MaxPool2x2()(values), expected)  # without gradients
    found, of_pytorch = (pooled(pool, values, weights) for pool in (MaxPool2x2(), nn.MaxPool2d(2)))
    assert all(torch.equal(one, other) for one, other in zip(found, of_pytorch, strict=True))


def test_the_first_of_equal_values_has_the_gradient() -> None:
    """Every way in which four values may be equal, smaller and larger."""
    compare(torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 4).view(81, 1, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_and_order_in_memory_is_pooled(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    for given in (values, values.to(memory_format=torch.channels_last), values.mT.contiguous().mT):
        compare(given)


def test_pytorch_pools_what_is_not_contiguous_or_has_an_odd_side() -> None:
    values = torch.zeros(1, 2, 4, 4, requires_grad=True)
    assert MaxPool2x2()(values).grad_fn.name() == "_LargestOfFourBackward"
    for other in (values.mT, values[..., :3], values.to(memory_format=torch.channels_last)):
        assert MaxPool2x2()(other).grad_fn.name() == "MaxPool2DWithIndicesBackward0"


def test_gradients_may_be_differentiated_again() -> None:
    values = torch.randn(2, 2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(MaxPool2x2(), values)
    assert torch.autograd.gradgradcheck(lambda given: MaxPool2x2()(given) ** 2, values)
