"""The small network pools before ReLU, which is less work than after it and gives the same results."""

import torch
from torch import nn
from torch.nn import functional as F

from distdiff.classification.networks import ImageClassifier, small_cnn


def relu_before_pooling(network: ImageClassifier, images: torch.Tensor) -> torch.Tensor:
    """The logits (B, K) with ReLU right after each batch normalisation, where it usually stands."""
    convolutions, norms = (
        [layer for layer in network.backbone if isinstance(layer, kind)] for kind in (nn.Conv2d, nn.BatchNorm2d)
    )
    values = (images - 0.5) / 0.5
    for number, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
        values = F.relu(norm(convolution(values)))
        values = values if number == 0 else F.max_pool2d(values, 2)
    return network.head(values.mean((2, 3)))


def test_relu_after_pooling_gives_the_same_logits_and_gradients() -> None:
    """With plain areas in the images, where all values that are pooled are equal, positive or not."""
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
