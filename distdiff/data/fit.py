"""How an image of any shape becomes a square: the same for sampler, prototypes and classifiers."""

import numpy as np
from PIL import Image, ImageOps


def fit_image(image: Image.Image, size: int, fit: str, area: tuple[float, float] | None = None) -> Image.Image:
    """Resizes to (size, size): `crop` keeps the centre, `squash` distorts, `pad` adds black bars. Lanczos, antialiased.

    `area`: the width and height that the picture takes from the upper left corner on, where that is not all of `image`.
    """
    if area is not None and area != image.size:
        return _fit_area(image, size, fit, *area)
    if image.size == (size, size):
        return image
    if fit == "crop":
        return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    if fit == "pad":
        return ImageOps.pad(image, (size, size), Image.Resampling.LANCZOS)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def _fit_area(image: Image.Image, size: int, fit: str, width: float, height: float) -> Image.Image:
    shown, inner = (0, 0, width, height), (size, size)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        shown = (left, top, left + side, top + side)
    elif fit == "pad":
        inner = tuple(max(1, round(size * side / max(width, height))) for side in (width, height))
    resized = image.resize(inner, Image.Resampling.LANCZOS, box=shown)
    if inner == (size, size):
        return resized
    square = Image.new(image.mode, (size, size))
    square.paste(resized, tuple(round((size - side) / 2) for side in inner))
    return square


def random_crop(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """Scales the shorter side to `size` (bilinear, antialiased) and crops a square at random, as the published code does."""
    width, height = image.size
    scale = size / min(width, height)
    image = image.resize((max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BILINEAR)
    left, top = (int(rng.integers(0, side - size + 1)) for side in image.size)
    return image.crop((left, top, left + size, top + size))
