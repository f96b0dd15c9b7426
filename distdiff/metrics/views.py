"""The features in which images are compared: those of the judge, of the encoder that guided, or the pixels."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from distdiff.console.stages import display
from distdiff.data.images import LabelledImages
from distdiff.encoders.base import Encoder

BATCH = 200  # images in a batch; the features do not depend on this number
PIXELS_SIDE = 16  # pixels a side of the images whose pixels are compared
CPU = torch.device("cpu")

T = TypeVar("T")
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
        encoder = self.encoder.to(self.device)

        def look(pixels: torch.Tensor) -> torch.Tensor:
            return encoder(pixels).float().cpu()

        return torch.cat(in_batches(look, images, encoder.input_size, self.fit, self.device, "guide"))


def in_batches(
    look: Callable[[torch.Tensor], T], images: LabelledImages, size: int, fit: str, device: torch.device, viewer: str
) -> list[T]:
    """What `look` returns for each batch (b, 3, size, size) of the images, which are on `device`.

    `fit` says how images become squares. The progress display names the `viewer`.
    """
    found, pixels = [], images.stream(size, fit)
    with display.stage(f"{viewer}: look at the images", len(images), "images", brief=True) as bar:
        while chunk := list(itertools.islice(pixels, BATCH)):
            found.append(look(torch.stack(chunk).to(device)))
            bar.advance(len(chunk))
    return found
