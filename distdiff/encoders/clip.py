"""CLIP as an encoder, whose features are CLIP's projected image embeddings."""

import torch
from torch import nn
from transformers import CLIPVisionModelWithProjection

from distdiff.encoders.pretrained import load_pretrained, some_of
from distdiff.encoders.processor import preprocessing_of
from distdiff.encoders.vision import TransformersSource, VisionEncoder, VisionFeatures
from distdiff.errors import UserError


class Clip(TransformersSource):
    """The projected image embedding of a CLIP model, which is given as a folder or hub id."""

    name = "clip"

    def load(self) -> VisionEncoder:
        """Raises `UserError` if `model` is not a CLIP model or cannot be loaded."""
        commit = self.commit()
        network, lacking = load_pretrained(CLIPVisionModelWithProjection, self.label, self.where, commit)
        if lacking:
            raise UserError(
                f"{self.label} is no CLIP vision model with a projection: it lacks fitting weights for {some_of(lacking)}"
            )
        preprocess = preprocessing_of(self.label, network, self.where, commit)
        return VisionEncoder.of(self.label, VisionFeatures(network, image_embedding), preprocess)


def image_embedding(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=inputs).image_embeds
