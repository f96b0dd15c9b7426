"""Decodes JPEGs at reduced size by the decoder's own scaling, so that a huge JPEG costs little time and memory."""

from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, jpeg_factory

SCALES = (1, 2, 4, 8)  # factors by which the decoder can divide an image's sides
MAX_BYTES = 2 * 2**30  # limit on memory for a progressive JPEG; the decoder holds all of it, with 16 bits per value


class TooLarge(Exception):
    """An image whose decoding would take too much memory. The error message says how much."""


def open_large(file: Path | str | BinaryIO) -> Image.Image:
    """Opens a JPEG that is too large for `Image.open`. Raises `SyntaxError` if the file is not a JPEG."""
    if not isinstance(file, (str, Path)):
        file.seek(0)
    return jpeg_factory(file)


def reduce(image: Image.Image, most: float, max_pixels: int) -> tuple[float, float]:
    """Prepares a JPEG (or MPO) to be decoded up to `most` times smaller. Images of other formats are left as they are.

    A JPEG that would still have more than `max_pixels` is reduced further. In the decoded image, the picture fills an
    area from the upper left corner. Returns the (width, height) of this area in pixels. Both may be fractional, because
    a side need not be a multiple of the scale. Raises `TooLarge` for a progressive JPEG of more than `max_pixels` for
    which the decoder needs more than `MAX_BYTES`.
    """
    if not isinstance(image, JpegImageFile):
        return image.size
    width, height = image.size
    scale = max(scale for scale in SCALES if scale <= max(1, most))
    while scale < SCALES[-1] and -(-width // scale) * -(-height // scale) > max_pixels:
        scale *= 2
    if width * height > max_pixels and (needed := _held_bytes(image)) > MAX_BYTES:
        raise TooLarge(f"a progressive JPEG of {width:,} x {height:,} takes {needed / 2**30:.1f} GiB to decode")
    if scale == 1:
        return image.size
    # The mode is None: the decoder's conversion to grey differs from Pillow's, and the decoder cannot convert CMYK.
    drafted = image.draft(None, (max(1, width // scale), max(1, height // scale)))
    return image.size if drafted is None else drafted[1][2:]


def _held_bytes(image: JpegImageFile) -> int:
    """The number of bytes that the decoder holds as coefficients of a file with several scans.

    The number is 0 for a file with one scan, which is decoded as it is read.
    """
    if not image.info.get("progressive") and _one_scan(image):
        return 0
    across, down = (max(layer[axis] for layer in image.layer) for axis in (1, 2))
    share = sum(layer[1] * layer[2] for layer in image.layer) / (across * down)
    return int(2 * image.width * image.height * share)


def _one_scan(image: JpegImageFile) -> bool:
    """Whether the first scan, whose header was just read, has all colour components of the image."""
    end, components = image.fp.tell(), len(image.layer)
    header = b"\xff\xda" + (6 + 2 * components).to_bytes(2, "big") + components.to_bytes(1, "big")
    image.fp.seek(max(0, end - 2 - (6 + 2 * components)))
    found = image.fp.read(len(header))
    image.fp.seek(end)
    return found == header
