"""The parts that all encoders from transformers share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from distdiff.caching.fingerprint import fingerprint_model
from distdiff.classification.preprocessing import Preprocessing
from distdiff.encoders.base import Encoder
from distdiff.encoders.location import MODEL, TRANSFORMERS_CONFIG, vision_model_path
from distdiff.encoders.pretrained import loading
from distdiff.encoders.source import EncoderContext, PretrainedSource
from distdiff.hub import cached_folder, pinned

Reading = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class VisionFeatures(nn.Module):
    """A module that maps pixel values (B, 3, H, W) to features (B, D) of a transformers model.

    `read(model, pixel_values)` runs the model and returns the features.
    """

    def __init__(self, model: PreTrainedModel, read: Reading) -> None:
        super().__init__()
        self.model = model
        self.read = read

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.read(self.model, inputs)

    @torch.no_grad()
    def feature_dim(self, input_size: int) -> int:
        """The number of features D, found by running the model on one image of zeros.

        Raises `ValueError` if the model's features are not of shape (B, D).
        """
        features = self(torch.zeros(1, 3, input_size, input_size))
        if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != 1:
            raise ValueError("it does not give one feature vector for each image")
        return features.shape[1]


class VisionEncoder(Encoder):
    """φ(x): the features of a transformers model.

    The whole square image is resized to the model's input size. Many published processors crop the centre; no such crop
    is made here, so that guidance also sees the borders.
    """

    @classmethod
    def of(cls, label: str, features: VisionFeatures, preprocess: Preprocessing) -> "VisionEncoder":
        """The encoder with these `features`.

        Raises a `UserError` that starts with `label` if the model does not turn images into features of shape (B, D).
        """
        with loading(label):
            return cls(features, preprocess, features.feature_dim(preprocess.input_size))

    def extract(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.network(inputs)


class TransformersSource(PretrainedSource):
    """A transformers model, which is given as a folder or hub id.

    The option's `name` is part of the encoder's identity.
    """

    name: str

    def __init__(self, context: EncoderContext, *, model: str, revision: str | None) -> None:
        self.model = model
        self.revision = revision
        self.label = f"{MODEL}={model}"

    @property
    def where(self) -> Path | str:
        """The model's folder (`Path`) or hub id."""
        return vision_model_path(self.model) or self.model

    def commit(self) -> str | None:
        """The commit that `revision` names on the hub, or None for a local folder.

        Raises `UserError` if the commit cannot be found.
        """
        if vision_model_path(self.model) is not None:
            return None
        with loading(self.label, on_hub=True):
            return pinned(self.model, self.revision).resolved

    def ingredients(self) -> dict[str, Any]:
        """Raises `UserError` if the model is on the hub and cannot be found: images could not be made later either."""
        self.commit()
        return {
            "name": self.name,
            "model": fingerprint_model(vision_model_path(self.model), self.model, self.revision),
        }

    def fetch(self) -> dict[str, Path]:
        """Downloads the model and loads it once, so that a model that cannot be used is reported early.

        Returns {`key=value`: cache folder}, which is empty for a local folder.
        """
        if vision_model_path(self.model) is not None:
            return {}
        self.load()
        return {self.label: cached_folder(self.model, TRANSFORMERS_CONFIG, self.commit())}
