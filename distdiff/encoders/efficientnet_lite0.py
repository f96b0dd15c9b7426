"""EfficientNet-Lite0 as an encoder, whose weights come from an installed package."""

from typing import Any

import torch

from distdiff.caching.fingerprint import fingerprint, fingerprint_files
from distdiff.classification.config import check_pretrained
from distdiff.classification.efficientnet import FEATURE_DIM, lite0_features, lite0_preprocessing, lite0_weights
from distdiff.encoders.base import Encoder
from distdiff.encoders.config import LITE0
from distdiff.encoders.source import REVISION, EncoderContext, PretrainedSource


class Lite0Encoder(Encoder):
    """φ(x): the pooled features of EfficientNet-Lite0, (B, 1280), with ImageNet's weights.

    The whole square image is resized to 224 pixels, without the central crop of the published evaluation.
    """

    def __init__(self) -> None:
        super().__init__(lite0_features(), lite0_preprocessing(), FEATURE_DIM)

    def extract(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.network(inputs)


class EfficientNetLite0(PretrainedSource):
    """EfficientNet-Lite0 with the weights in the installed package; raises `UserError` if the package is missing."""

    def __init__(self, context: EncoderContext) -> None:
        check_pretrained(f"encoder={LITE0}")

    def load(self) -> Lite0Encoder:
        return Lite0Encoder()

    def ingredients(self) -> dict[str, Any]:
        return _ingredients()


def lite0_identity() -> str:
    """The fingerprint of this encoder, as the manifest of an expanded dataset names it."""
    return fingerprint({"revision": REVISION} | _ingredients())


def _ingredients() -> dict[str, Any]:
    return {"name": LITE0, "weights": fingerprint_files(lite0_weights())}
