"""The features in which images are compared: those of the judge, of the encoder that guided, or the pixels."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from distdiff.console.stages import display
from distdiff.data.images import LabelledImages
from distdiff.encoders.base import Encoder

BATCH = 200  # images in a batch; the features do not depend on this number
PIXELS_SIDE = 16  # pixels a side of the images whose pixels are compared
CPU = torch.device("cpu")

View = Callable[[LabelledImages], torch.Tensor]  # gives the features (n, D) of one or more images, on the CPU


@dataclass(frozen=True)
class PixelView:
    """The pixels of images in [0, 1], fitted by the method `fit` to squares of `PIXELS_SIDE` pixels a side."""

    fit: str

    def __call__(self, images: LabelledImages) -> torch.Tensor:
        return images.tensors(PIXELS_SIDE, self.fit).flatten(1)


@dataclass(frozen=True, eq=False)
class GuideView:
    """The features φ(x) of unit length of the `encoder` that guides, which runs on `device`.

    `fit` says how images become squares of the encoder's own size.
    """

    encoder: Encoder
    fit: str
    device: torch.device = CPU

    @torch.no_grad()
    def __call__(self, images: LabelledImages) -> torch.Tensor:
        encoder, features = self.encoder.to(self.device), []
        pixels = images.stream(encoder.input_size, self.fit)
        with display.stage("guide: look at the images", len(images), "images", brief=True) as bar:
            while chunk := list(itertools.islice(pixels, BATCH)):
                features.append(encoder(torch.stack(chunk).to(self.device)).float().cpu())
                bar.advance(len(chunk))
        return torch.cat(features)
