"""Encoders made from transformers models: CLIP, and any vision model such as DINOv2."""

from collections.abc import Callable

import torch
from torch import nn
from transformers import AutoModel, CLIPVisionModelWithProjection, PreTrainedModel

from distdiff.classification.preprocessing import Preprocessing
from distdiff.encoders.base import Encoder
from distdiff.encoders.location import MODEL, model_path
from distdiff.encoders.pretrained import load_pretrained, loading, some_of
from distdiff.encoders.processor import preprocessing_of
from distdiff.errors import UserError

CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")

Reading = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class VisionFeatures(nn.Module):
    """A transformers model as a module from pixel values (B, 3, H, W) to features (B, D): what `read` takes from it."""

    def __init__(self, model: PreTrainedModel, read: Reading) -> None:
        super().__init__()
        self.model = model
        self.read = read

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.read(self.model, inputs)

    @torch.no_grad()
    def feature_dim(self, input_size: int) -> int:
        """D, from one black image; raises `ValueError` where the model gives no features (B, D) of it."""
        features = self(torch.zeros(1, 3, input_size, input_size))
        if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != 1:
            raise ValueError("it gives no feature vector an image")
        return features.shape[1]


class VisionEncoder(Encoder):
    """φ(x): the features of a transformers model.

    The whole square image is resized to the model's input size; the centre crop that many published processors make is
    left out, so that the guidance sees the borders too.
    """

    @classmethod
    def of(cls, label: str, features: VisionFeatures, preprocess: Preprocessing) -> "VisionEncoder":
        """Raises `UserError` that starts with `label` where the model is none that turns images into features."""
        with loading(label):
            return cls(features, preprocess, features.feature_dim(preprocess.input_size))

    def extract(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.network(inputs)


def load_clip(model: str, revision: str | None = None) -> VisionEncoder:
    """CLIP's projected image embedding; raises `UserError` where `model` is no CLIP folder or hub id, or cannot be had."""
    label, where = f"{MODEL}={model}", model_path(model) or model
    network, lacking = load_pretrained(CLIPVisionModelWithProjection, label, where, revision)
    if lacking:
        raise UserError(
            f"{label} is no CLIP vision model with a projection: it lacks fitting weights for {some_of(lacking)}"
        )
    preprocess = preprocessing_of(label, network, where, revision)
    return VisionEncoder.of(label, VisionFeatures(network, image_embedding), preprocess)


def load_vision_model(model: str, revision: str | None = None) -> VisionEncoder:
    """Pooled features of any transformers vision model, of a folder or hub id.

    A model of images and texts gives its image features; others their `pooler_output`, flattened; without trained pooling
    the class token, or the mean over positions where there is none. Raises `UserError` where `model` is no vision model,
    lacks other weights, or cannot be had.
    """
    label, where = f"{MODEL}={model}", model_path(model) or model
    network, lacking = load_pretrained(AutoModel, label, where, revision)
    pooler = {name for name in lacking if "pooler." in name}
    if lacking - pooler:
        raise UserError(
            f"{label} is no complete vision model: it lacks fitting weights for {some_of(lacking - pooler)}"
        )
    preprocess = preprocessing_of(label, network, where, revision)
    with loading(label):
        read = _reading(network, preprocess.input_size, has_pooler=not pooler)
    return VisionEncoder.of(label, VisionFeatures(network, read), preprocess)


def image_embedding(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=inputs).image_embeds


def image_features(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    features = model.get_image_features(pixel_values=inputs)
    return features if isinstance(features, torch.Tensor) else features.pooler_output  # a tensor before transformers 5


def pooled(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=inputs).pooler_output.flatten(1)


def class_token(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=inputs).last_hidden_state[:, 0]


def mean_over_positions(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    hidden = model(pixel_values=inputs).last_hidden_state  # (B, tokens, D) or (B, D, h, w)
    return hidden.mean(1) if hidden.ndim == 3 else hidden.flatten(2).mean(2)


@torch.no_grad()
def _reading(network: PreTrainedModel, input_size: int, has_pooler: bool) -> Reading:
    if hasattr(network, "get_image_features"):
        return image_features
    output = network(pixel_values=torch.zeros(1, 3, input_size, input_size))
    if has_pooler and getattr(output, "pooler_output", None) is not None:
        return pooled
    tokens = {name.rsplit(".", 1)[-1] for name, _ in network.named_parameters()}
    return class_token if tokens.intersection(CLASS_TOKENS) else mean_over_positions
