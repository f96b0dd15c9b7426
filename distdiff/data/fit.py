"""How an image of any shape becomes a square: the same for sampler, prototypes and classifiers."""

from PIL import Image, ImageOps


def fit_image(image: Image.Image, size: int, fit: str) -> Image.Image:
    """Resizes to (size, size): `crop` keeps the centre, `squash` distorts, `pad` adds black bars. Lanczos, antialiased."""
    if image.size == (size, size):
        return image
    if fit == "crop":
        return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    if fit == "pad":
        return ImageOps.pad(image, (size, size), Image.Resampling.LANCZOS)
    return image.resize((size, size), Image.Resampling.LANCZOS)
