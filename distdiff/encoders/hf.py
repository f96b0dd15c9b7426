"""Any transformers vision model, such as DINOv2, as an encoder, with the model's pooled features."""

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from distdiff.encoders.pretrained import load_pretrained, loading, some_of
from distdiff.encoders.processor import preprocessing_of
from distdiff.encoders.vision import Reading, TransformersSource, VisionEncoder, VisionFeatures
from distdiff.errors import UserError

CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")


class VisionModel(TransformersSource):
    """Pooled features of a transformers vision model, which is given as a folder or hub id.

    A model of images and texts gives its image features. Other models give their flattened `pooler_output`. A model
    without trained pooling gives its class token or, without such a token, the mean of its outputs over all positions.
    """

    name = "hf"

    def load(self) -> VisionEncoder:
        """Raises `UserError` if `model` is no vision model, cannot be loaded, or lacks weights besides its pooler's."""
        commit = self.commit()
        network, lacking = load_pretrained(AutoModel, self.label, self.where, commit)
        pooler = {name for name in lacking if "pooler." in name}
        if lacking - pooler:
            raise UserError(
                f"{self.label} is no complete vision model: it lacks fitting weights for {some_of(lacking - pooler)}"
            )
        preprocess = preprocessing_of(self.label, network, self.where, commit)
        with loading(self.label):
            read = _reading(network, preprocess.input_size, has_pooler=not pooler)
        return VisionEncoder.of(self.label, VisionFeatures(network, read), preprocess)


def image_features(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    features = model.get_image_features(pixel_values=inputs)
    return features if isinstance(features, torch.Tensor) else features.pooler_output  # transformers 4 returns a tensor


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
