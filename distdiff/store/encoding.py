"""How an expanded image becomes a file: PNG, JPEG or WebP, in the size to save."""

import io
from dataclasses import dataclass
from pathlib import PurePosixPath

import torch
from PIL import Image

from distdiff.data.pixels import to_image

EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}
JPEG_QUALITY = 95  # if no quality is given


@dataclass(frozen=True)
class ImageEncoding:
    """The settings of an image file.

    `quality`: None means lossless (PNG or WebP). `save_size`: pixels per side; None keeps the image's own size.
    """

    image_format: str = "png"
    quality: int | None = None
    save_size: int | None = None

    @property
    def extension(self) -> str:
        return EXTENSIONS[self.image_format]

    @property
    def words(self) -> str:
        """The settings that change pixels, as a part of a name such as `jpeg95-256px`; empty if none of them does."""
        lossy = "" if self.quality is None else f"{self.image_format}{self.quality}"
        return "-".join(filter(None, (lossy, f"{self.save_size}px" if self.save_size else "")))

    def encode(self, pixels: torch.Tensor) -> bytes:
        """(3, H, W) in [0, 1] -> the bytes of an image file."""
        return self.encode_image(to_image(pixels))

    def encode_image(self, image: Image.Image) -> bytes:
        """An RGB image -> the bytes of an image file; resized with an antialiased Lanczos filter."""
        if self.save_size and image.size != (self.save_size, self.save_size):
            image = image.resize((self.save_size, self.save_size), Image.Resampling.LANCZOS)
        options = {"lossless": True} if self.quality is None else {"quality": self.quality}
        file = io.BytesIO()
        image.save(file, format=self.image_format.upper(), **({} if self.image_format == "png" else options))
        return file.getvalue()


def extension_of(file_name: str) -> str:
    """
    >>> extension_of("cat/a.png__0000.jpg")
    'jpg'
    """
    return PurePosixPath(file_name).suffix.removeprefix(".")
