"""JPEGs made smaller while they are decoded, by their decoder's own scaling, so that a huge one costs little."""

from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, jpeg_factory

SCALES = (1, 2, 4, 8)  # an image's sides are divided by
MAX_BYTES = 2 * 2**30  # of a progressive JPEG, which its decoder holds whole, in 16 bits a value


class TooLarge(Exception):
    """An image that would take too much memory; says why."""


def open_large(file: Path | str | BinaryIO) -> Image.Image:
    """A JPEG of any size, of which `Image.open` refuses to read even the header; raises `SyntaxError` where it is none."""
    if not isinstance(file, (str, Path)):
        file.seek(0)
    return jpeg_factory(file)


def reduce(image: Image.Image, most: float, max_pixels: int) -> tuple[float, float]:
    """Has `image`, not decoded yet, decoded `most` times smaller or less, where it is a JPEG (or MPO); else as it is.

    Still smaller where it has more than `max_pixels` otherwise. Returns the (width, height) that its picture then takes
    from the upper left corner on, in pixels: a fraction where a side is no multiple. Raises `TooLarge` for a progressive
    JPEG of more than `max_pixels` that takes more than `MAX_BYTES`.
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
    # Without a mode: it would be another way to grey, and of CMYK none.
    drafted = image.draft(None, (max(1, width // scale), max(1, height // scale)))
    return image.size if drafted is None else drafted[1][2:]


def _held_bytes(image: JpegImageFile) -> int:
    """What the decoder holds at once of a file that has its values in several scans; 0 for one scan."""
    if not image.info.get("progressive") and _one_scan(image):
        return 0
    across, down = (max(layer[axis] for layer in image.layer) for axis in (1, 2))
    share = sum(layer[1] * layer[2] for layer in image.layer) / (across * down)
    return int(2 * image.width * image.height * share)


def _one_scan(image: JpegImageFile) -> bool:
    """Whether the first scan, whose header was just read, has all of the components."""
    end, components = image.fp.tell(), len(image.layer)
    header = b"\xff\xda" + (6 + 2 * components).to_bytes(2, "big") + components.to_bytes(1, "big")
    image.fp.seek(max(0, end - 2 - (6 + 2 * components)))
    found = image.fp.read(len(header))
    image.fp.seek(end)
    return found == header
