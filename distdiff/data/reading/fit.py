"""Fits images of any shape to squares, in the same way for the sampler, the prototypes and the classifiers."""

from PIL import Image, ImageOps


def fit_image(image: Image.Image, size: int, fit: str) -> Image.Image:
    """Resizes an image to (size, size), with antialiasing (Lanczos).

    There are three values of `fit`: `crop` keeps the centre, `squash` distorts the image, and `pad` adds black bars.
    """
    if image.size == (size, size):
        return image
    if fit == "crop":
        return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    if fit == "pad":
        return ImageOps.pad(image, (size, size), Image.Resampling.LANCZOS)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def fit_area(image: Image.Image, size: int, fit: str, width: float, height: float) -> Image.Image:
    """Fits the upper left `width` x `height` pixels of `image` as `fit_image` would.

    But with `pad`, no bars are added.
    """
    shown, inner = (0, 0, width, height), (size, size)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        shown = (left, top, left + side, top + side)
    elif fit == "pad":
        inner = tuple(max(1, round(size * side / max(width, height))) for side in (width, height))
    return image.resize(inner, Image.Resampling.LANCZOS, box=shown)
