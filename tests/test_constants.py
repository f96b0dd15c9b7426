"""Constants are copied to a device once, and take part in gradients wherever they were needed first."""

import torch

from distdiff.constants import constant

CPU = torch.device("cpu")


def test_a_constant_is_made_once_for_each_device_and_dtype() -> None:
    first = constant((0.1, 2.0), CPU, torch.float32)
    assert constant((0.1, 2.0), CPU, torch.float32) is first
    assert first.tolist() == torch.tensor([0.1, 2.0]).tolist()
    exact = constant((0.1, 2.0), CPU, torch.float64)
    assert (exact.dtype, exact.tolist()) == (torch.float64, [0.1, 2.0])


def test_a_constant_that_is_first_needed_in_inference_mode_takes_part_in_gradients() -> None:
    with torch.inference_mode():
        factor = constant((3.5,), CPU, torch.float64)
    inputs = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((inputs * factor * inputs).sum(), inputs)
    assert gradient.tolist() == [7, 7]
