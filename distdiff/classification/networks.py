"""Image classifiers with named parts (preprocessing, features, head), so that a classifier can also be the guide."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import nn
from transformers import ResNetConfig, ResNetModel

from distdiff.classification.pooling import MaxPool2x2
from distdiff.classification.preprocessing import Preprocessing
from distdiff.errors import UserError
from distdiff.keys import Limits, Pixels

Mean = Annotated[float, Limits(at_least=0, at_most=1)]
Deviation = Annotated[float, Limits(at_least=1e-3, at_most=1)]  # pixels are in [0, 1]


class ImageClassifier(nn.Module):
    """A backbone and a linear head, together with the preprocessing of their training images.

    `forward` maps images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes). `features` maps the same
    images to the head's input, (B, feature_dim), and `forward` takes such features too, in place of the images.
    `freeze` is the key of the option, for classifiers with pretrained weights.
    """

    freeze = "none"

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        num_classes: int,
        input_size: int,
        mean: float | Sequence[float],
        std: float | Sequence[float],
    ) -> None:
        """`mean` and `std` normalise the pixels, in [0, 1]: one value for each colour channel, or one for all three."""
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(feature_dim, num_classes)
        self.feature_dim = feature_dim
        self.preprocess = Preprocessing(input_size, _of_channels("mean", mean), _of_channels("std", std))

    @property
    def input_size(self) -> int:
        return self.preprocess.input_size

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone(self.preprocess(images))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images if images.dim() == 2 else self.features(images))


def _of_channels(name: str, value: float | Sequence[float]) -> tuple[float, float, float]:
    if not isinstance(value, Sequence):
        return (value,) * 3
    if len(value) != 3:
        raise UserError(f"a classifier's {name}={list(value)} is not allowed: a number for red, green and blue")
    return tuple(value)


def resnet18(
    num_classes: int, *, input_size: Pixels, mean: list[Mean] | None = None, std: list[Deviation] | None = None
) -> ImageClassifier:
    """The ResNet-18 (He et al., 2016) of the transformers library, with random weights."""
    return _resnet("basic", [2, 2, 2, 2], [64, 128, 256, 512], num_classes, input_size, mean, std)


def resnet50(
    num_classes: int, *, input_size: Pixels, mean: list[Mean] | None = None, std: list[Deviation] | None = None
) -> ImageClassifier:
    """The ResNet-50 (He et al., 2016) of the transformers library, with random weights."""
    return _resnet("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048], num_classes, input_size, mean, std)


class _PooledFeatures(nn.Module):
    """A module that maps images to the pooled features (B, D) of a transformers vision model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images).pooler_output.flatten(1)


def _resnet(
    layer_type: str,
    depths: list[int],
    widths: list[int],
    num_classes: int,
    input_size: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> ImageClassifier:
    model = ResNetModel(ResNetConfig(layer_type=layer_type, depths=depths, hidden_sizes=widths))
    normalization = (0.45 if mean is None else mean, 0.225 if std is None else std)
    return ImageClassifier(_PooledFeatures(model), widths[-1], num_classes, input_size, *normalization)


def small_resnet(num_classes: int, *, input_size: Pixels) -> ImageClassifier:
    """A small residual network: three basic blocks, of 32, 64 and 128 channels."""
    config = ResNetConfig(layer_type="basic", embedding_size=32, depths=[1, 1, 1], hidden_sizes=[32, 64, 128])
    return ImageClassifier(_PooledFeatures(ResNetModel(config)), 128, num_classes, input_size, mean=0.45, std=0.225)


def small_cnn(num_classes: int, *, input_size: Pixels) -> ImageClassifier:
    """A small network with a strided stem, two convolution stages and global average pooling."""

    def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs)]

    # ReLU after pooling gives the same values and gradients as before it, of a quarter of the elements.
    backbone = nn.Sequential(
        *(*convolution(3, 32, stride=2), nn.ReLU()),
        *(*convolution(32, 64), MaxPool2x2(), nn.ReLU()),
        *(*convolution(64, 128), MaxPool2x2(), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return ImageClassifier(backbone, 128, num_classes, input_size, mean=0.5, std=0.5)
