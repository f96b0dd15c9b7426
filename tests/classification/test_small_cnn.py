"""The small network pools before ReLU, which is less work than after it and changes no bit."""

import torch
from torch import nn
from torch.nn import functional as F

from distdiff.classification.networks import small_cnn


def relu_before_pooling(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The logits (B, K) in training, with ReLU right after each batch normalisation, as such networks are drawn."""
    weights = dict(network.named_parameters())
    convolutions = [value for value in weights.values() if value.ndim == 4]
    scales, shifts = (
        [value for name, value in weights.items() if name.startswith("backbone.") and value.ndim == 1][i::2]
        for i in (0, 1)
    )
    values = (images - 0.5) / 0.5
    for number, (kernel, scale, shift) in enumerate(zip(convolutions, scales, shifts, strict=True)):
        values = F.conv2d(values, kernel, stride=2 if number == 0 else 1, padding=1)
        values = F.relu(F.batch_norm(values, None, None, scale, shift, training=True))
        values = values if number == 0 else F.max_pool2d(values, 2)
    return F.linear(
        values.mean((2, 3)), *(value for name, value in weights.items() if not name.startswith("backbone."))
    )


def test_relu_after_pooling_gives_the_same_logits_and_gradients() -> None:
    """With plain areas in the images, in which all values under a pooling window are equal, positive or not."""
    torch.manual_seed(0)
    network = small_cnn(4, input_size=32)
    images = torch.rand(8, 3, 32, 32)
    images[::2, :, 4:28, 2:30] = torch.rand(4, 3, 1, 1)
    images.requires_grad_()
    asked = [images, *network.parameters()]
    assert len(asked) == 12
    found, expected = network(images), relu_before_pooling(network, images)
    assert torch.equal(found, expected)
    target = torch.tensor([0, 1, 2, 3] * 2)
    gradients = [torch.autograd.grad(F.cross_entropy(logits, target), asked) for logits in (found, expected)]
    assert all(torch.equal(one, other) and one.abs().sum() > 0 for one, other in zip(*gradients, strict=True))
