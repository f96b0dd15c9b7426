"""The one way from an image file to RGB: what a user's files hold, as people see it, or a reason in plain words why not."""

import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from distdiff.errors import UserError, first_line

Image.init()
# Formats that hold no pixels of their own, and EPS, which Pillow hands to another program.
FORMATS = tuple(sorted(set(Image.OPEN) - {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}))
EXTENSIONS = frozenset(extension for extension, name in Image.registered_extensions().items() if name in FORMATS)
# Twice Pillow's own limit, where it refuses: cameras reach it, and what must be held at once stays below 2 GB.
MAX_PIXELS = 178_956_970
BACKGROUND = (255, 255, 255)  # what shows through where an image is transparent


class UnreadableImage(UserError):
    """An image file that cannot be read: `reason` without its name, the message with it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"cannot read {self.name}: {self.reason}"


def read_image(file: Path | str | BinaryIO, name: str | None = None) -> Image.Image:
    """The image of a file (of an animation the first) as RGB, upright; raises `UnreadableImage`.

    `name` is what a stream is called in errors. More than `MAX_PIXELS` pixels are refused before they are decoded.
    """
    name = str(file) if name is None else name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of half our limit, and of tags that no pixel depends on
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                if image.format != "PNG":
                    return to_rgb(image)
                image.verify()  # decoding passes over one flipped bit in five, and over a hole filled with zeros
            if not isinstance(file, (str, Path)):
                file.seek(0)
            with Image.open(file, formats=("PNG",)) as image:
                return to_rgb(image)
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        raise UnreadableImage(name, _reason(error, file)) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image as RGB: upright by its EXIF orientation, 16-bit grey scaled, transparency on `BACKGROUND`.

    Raises what Pillow raises where the image is only decoded now and damaged, `ValueError` for values not finite.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_grey(np.asarray(image))
    if image.mode == "LAB":
        return ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image).convert("RGB")
    return image.convert("RGB")


def _from_grey(values: np.ndarray) -> Image.Image:
    """Integers count up to 65535 and fractions up to 1 or to 255; other values are stretched from least to greatest."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():
        raise ValueError("it holds values that are not finite")
    if np.issubdtype(values.dtype, np.integer):
        black, white = (0, 65535) if low >= 0 and high <= 65535 else (low, high)
    elif low >= 0 and high <= 255:
        black, white = 0, 1 if high <= 1 else 255
    else:
        black, white = low, high
    levels = (values.astype(np.float32) - black) * (255 / ((white - black) or 1))
    return Image.fromarray(np.rint(levels).clip(0, 255).astype(np.uint8)).convert("RGB")


def _reason(error: Exception, file: Path | str | BinaryIO) -> str:
    if isinstance(error, UnidentifiedImageError):
        if isinstance(file, (str, Path)) and os.path.getsize(file) == 0:
            return "the file is empty"
        return "it is no image, or one of a format that is not known here"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS:,} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    return f"it is damaged ({first_line(error)})"
