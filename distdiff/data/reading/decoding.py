"""The only place where image files are decoded.

The result is RGB as a viewer shows the image, or a plain reason why the image cannot be read.
"""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from distdiff.data.reading.fit import fit_area, fit_image
from distdiff.data.reading.jpeg import SCALES, TooLarge, open_large, reduce
from distdiff.data.reading.tags import UPRIGHT, lost_orientation, orientation, upright, without_tags
from distdiff.data.reading.value_range import ValueRange
from distdiff.errors import UserError, first_line
from distdiff.placeholders import placeholder

Image.init()
# `FORMATS` leaves out formats that hold no pixels of their own, and EPS, which Pillow hands to another program.
_USUAL = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # first in `FORMATS`, because Pillow tries formats in order
FORMATS = (*_USUAL, *sorted(set(Image.OPEN) - {*_USUAL, "BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}))
EXTENSIONS = frozenset(extension for extension, name in Image.registered_extensions().items() if name in FORMATS)
# Pillow itself refuses an image with more pixels than this, twice its `MAX_IMAGE_PIXELS`. The images of some cameras
# reach this size. A thread that decodes such an image holds less than 2 GB.
MAX_PIXELS = 178_956_970
READING = 2  # version of the decoding, part of every data identity; raise the number when decoded pixels may change
GAP = 2  # a JPEG of reduced size is at least this many times as large as its square (like Pillow's `reducing_gap`)
Colour = tuple[int, int, int]
WHITE = (255, 255, 255)
SIXTEEN_BITS = ValueRange()
# Pillow scales the values of these formats to 16 bits itself, because their files say which value is white.
SCALED = ("PPM", "JPEG2000")
WHITE_IS_ZERO = (262, 0)  # the tag of a TIFF that says what its values mean, and its value for a negative
SIGNATURES = {  # the first bytes of files that are usual, but that no decoder may be able to read any more
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WebP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "TIFF": rb"II\*\0|MM\0\*",
}
T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """What must be known of a readable image, besides its bytes, to know its pixels under other keys.

    `rescued` says whether its orientation was read from damaged tags in which Pillow finds none, `deep` whether it is
    greyscale with more than 8 bits. `largest` is its largest value if it is deep and has only integers from 0 to 65535.
    `negative` says whether it is deep and 0 is white.
    """

    transparent: bool = False
    rescued: bool = False
    deep: bool = False
    largest: int | None = None
    negative: bool = False


class UnreadableImage(UserError):
    """An image file that cannot be read. The error message contains the file's name, but `reason` does not."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"cannot read {self.name}: {self.reason}"


def read_image(
    file: Path | str | BinaryIO,
    name: str | None = None,
    background: Colour = WHITE,
    value_range: ValueRange = SIXTEEN_BITS,
) -> Image.Image:
    """The image of a file (the first frame of an animation) as upright RGB.

    `name` is the name of a stream in error messages. The colour `background` is shown where the image is transparent,
    and `value_range` says which grey is black and white. A JPEG of more than `MAX_PIXELS` pixels is decoded at reduced
    size. Any other image with so many pixels is refused before it is decoded. Raises `UnreadableImage` if the image
    cannot be read.
    """
    return _decode(file, name, lambda size: 1, lambda image, area: to_rgb(image, background, value_range))


def read_square(
    file: Path | str | BinaryIO,
    size: int,
    fit: str,
    name: str | None = None,
    background: Colour = WHITE,
    value_range: ValueRange = SIXTEEN_BITS,
) -> Image.Image:
    """The image of a file fitted to a square (see `fit_image`), as upright RGB.

    A large JPEG is decoded at reduced size, at least `GAP` times as large as the square. Raises `UnreadableImage` if
    the image cannot be read.
    """

    def reduction(sides: tuple[int, int]) -> float:
        return (max if fit == "pad" else min)(sides) / (GAP * size)

    def square(image: Image.Image, area: tuple[float, float]) -> Image.Image:
        if area == image.size:
            return fit_image(to_rgb(image, background, value_range), size, fit)
        fitted = fit_area(_colours(image, background), size, fit, *area)
        # Bars are added only after turning, since otherwise the wider of two unequal bars would change sides.
        return fit_image(upright(fitted, orientation(image)), size, fit)

    return _decode(file, name, reduction, square)


def facts_of(file: Path | str | BinaryIO, name: str | None = None) -> Facts:
    """Decodes an image to learn its facts. Raises `UnreadableImage` if the image cannot be read."""

    def facts(image: Image.Image, area: tuple[float, float]) -> Facts:
        rescued = lost_orientation(image) != UPRIGHT
        to_rgb(image)
        deep = is_deep(image) and not is_scaled(image)
        largest = _largest(np.asarray(image)) if deep else None
        return Facts(image.has_transparency_data, rescued, deep, largest, is_negative(image))

    return _decode(file, name, lambda size: SCALES[-1], facts)


def _decode(
    file: Path | str | BinaryIO,
    name: str | None,
    reduction: Callable[[tuple[int, int]], float],
    finish: Callable[[Image.Image, tuple[float, float]], T],
) -> T:
    """Opens a file, and returns `finish(image, area)` of its image.

    A JPEG is decoded up to `reduction(size)` times smaller, where `size` is its (width, height). `area` is the result
    of `jpeg.reduce`. A file that cannot be read is tried once more without its tags, which may be all that is damaged.
    Raises `UnreadableImage` if the image cannot be read.
    """
    try:
        return _decode_once(file, reduction, finish)
    except Exception as error:  # a damaged file can make decoders raise any exception
        bare = None if isinstance(error, (Image.DecompressionBombError, TooLarge)) else without_tags(file)
        if bare is not None:
            with contextlib.suppress(Exception):
                return _decode_once(bare, reduction, finish)
        raise UnreadableImage(str(file) if name is None else name, _reason(error, file)) from None


def _decode_once(
    file: Path | str | BinaryIO,
    reduction: Callable[[tuple[int, int]], float],
    finish: Callable[[Image.Image, tuple[float, float]], T],
) -> T:
    with _open(file) as image:
        area = reduce(image, reduction(image.size), MAX_PIXELS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        if image.format != "PNG":
            return finish(image, area)
        image.verify()  # decoding alone misses one flipped bit in five, and a gap that was filled with zeros
    if not isinstance(file, (str, Path)):
        file.seek(0)
    with Image.open(file, formats=("PNG",)) as image:
        return finish(image, image.size)


def refuse_no_image(file: BinaryIO, name: str) -> None:
    """Raises `UnreadableImage` for a stream that does not begin as an image. The image is not decoded."""
    try:
        with open_image(file):
            pass
    except Exception as error:  # a damaged file can make decoders raise any exception
        raise UnreadableImage(name, _reason(error, file)) from None


def open_image(file: Path | str | BinaryIO) -> Image.Image:
    """Opens a file and reads its header. JPEGs of any size, and damaged tags, are accepted.

    Raises what Pillow raises for any other file.
    """
    try:
        return _open(file)
    except Exception:
        bare = without_tags(file)
        if bare is None:
            raise
        return _open(bare)


def _open(file: Path | str | BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as bomb:
        try:
            return open_large(file)
        except SyntaxError:
            raise bomb from None


def to_rgb(image: Image.Image, background: Colour = WHITE, value_range: ValueRange = SIXTEEN_BITS) -> Image.Image:
    """Any PIL image as RGB, turned upright by its EXIF orientation.

    Greyscale of more than 8 bits is scaled by `value_range`, and `background` is shown where the image is transparent.
    Raises what Pillow raises if decoding fails, and `ValueError` for values that are not finite.
    """
    image.load()
    if is_scaled(image):
        value_range = SIXTEEN_BITS
    shown = _colours(upright(image, orientation(image)), background, value_range)
    return ImageOps.invert(shown) if is_negative(image) else shown


def is_deep(image: Image.Image) -> bool:
    """Whether an image is greyscale with more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def is_negative(image: Image.Image) -> bool:
    """Whether 0 is white in an image of more than 8 bits. Pillow itself inverts those of 8 bits."""
    tag, value = WHITE_IS_ZERO
    return is_deep(image) and image.format == "TIFF" and image.tag_v2.get(tag) == value


def is_scaled(image: Image.Image) -> bool:
    """Whether Pillow has already scaled the integers of an image to 16 bits."""
    return image.format in SCALED and image.mode != "F"


def _colours(image: Image.Image, background: Colour, value_range: ValueRange = SIXTEEN_BITS) -> Image.Image:
    if is_deep(image):
        return _from_grey(np.asarray(image), value_range)
    if image.mode == "LAB":
        return ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")
    return image.convert("RGB")


def _from_grey(values: np.ndarray, value_range: ValueRange) -> Image.Image:
    """Converts grey values to RGB. Values beyond black or white are clipped.

    If the limits of `value_range` are given, they are black and white. Otherwise, they are so for integers from 0 to
    65535. Floats are black at 0 and white at 1, or at 255 if a value is larger than 1. If other integers or floats are
    outside of these ranges, the smallest value is black and the largest is white. Raises `ValueError` for values that
    are not finite.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():
        raise ValueError("it holds values that are not finite")
    if value_range.given or _largest(values) is not None:
        black, white = value_range.limits()
    elif not np.issubdtype(values.dtype, np.integer) and low >= 0 and high <= 255:
        black, white = 0, 1 if high <= 1 else 255
    else:
        black, white = low, high
    levels = (values.astype(np.float32) - black) * (255 / ((white - black) or 1))
    return Image.fromarray(np.rint(levels).clip(0, 255).astype(np.uint8)).convert("RGB")


def _largest(values: np.ndarray) -> int | None:
    """The largest of `values` if all of them are integers from 0 to 65535."""
    if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() > 65535:
        return None
    return int(values.max())


def _reason(error: Exception, file: Path | str | BinaryIO) -> str:
    if isinstance(error, UnidentifiedImageError):
        if (instead := placeholder(file)) is not None:
            return instead
        if kind := _kind(file):
            return f"it is damaged (it begins as a {kind}, and the rest cannot be read)"
        return "it is no image, or one of a format that is not known here"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS:,} pixels"
    if isinstance(error, TooLarge):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    return f"it is damaged ({first_line(error)})"


def _kind(file: Path | str | BinaryIO) -> str | None:
    """The usual format whose signature a file has, or None."""
    if isinstance(file, (str, Path)):
        with open(file, "rb") as stream:
            start = stream.read(12)
    else:
        file.seek(0)
        start = file.read(12)
    return next((kind for kind, sign in SIGNATURES.items() if re.match(sign, start, re.DOTALL)), None)
