"""Digits drawn from the fonts that matplotlib bundles.

They are a broad prior over digits that contains no handwriting.
"""

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.ndimage import gaussian_filter, map_coordinates

from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.splits.carving import split_three_ways
from distdiff.keys import PositiveInt

# The bundled text fonts with ordinary digits. The others are cmmi10, which has old-style digits, and cmsy10 and cmex10,
# which have symbols.
FONT_NAMES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
)
CANVAS, GLYPH = 96, 80  # canvas side and font size in pixels, before shrinking to the image size
SEED = 20240611


def load(*, num_images: PositiveInt, image_size: int, name: str, split_seed: int) -> DatasetSplits:
    """`num_images` drawn digits, whose classes cycle from 0 to 9.

    Each image depends only on its index and on `image_size`.
    """
    images = LabelledImages(
        name=name,
        class_names=tuple(str(digit) for digit in range(10)),
        labels=np.arange(num_images) % 10,
        keys=tuple(f"{index:05d}" for index in range(num_images)),
        read=cache(lambda index: render(index % 10, np.random.default_rng([SEED, index]), image_size)),
        indices=np.arange(num_images),
    )
    return split_three_ways(images, validation=0.05, test=0.05, split_seed=split_seed)


def render(digit: int, rng: np.random.Generator, size: int) -> Image.Image:
    """Draws a digit as an RGB image of (size, size).

    The font, stroke width, affine and elastic warp, blur and colours are random.
    """
    ink = _warp(_draw(digit, rng), rng)
    ink = gaussian_filter(ink, rng.uniform(0.3, 1.4) * CANVAS / 32)
    ink = np.clip(ink / max(ink.max(), 1e-6), 0, 1)
    small = np.asarray(_shrink(Image.fromarray((ink * 255).astype(np.uint8)), size, rng)) / 255
    background, foreground = _colours(rng)
    pixels = background + (foreground - background) * small[..., None]
    pixels = pixels + rng.normal(0, rng.uniform(0, 0.02), pixels.shape)
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def _draw(digit: int, rng: np.random.Generator) -> np.ndarray:
    canvas = Image.new("L", (CANVAS, CANVAS), 0)
    font = _font(FONT_NAMES[rng.integers(len(FONT_NAMES))])
    stroke = int(rng.integers(0, 4))
    ImageDraw.Draw(canvas).text((CANVAS / 2, CANVAS / 2), str(digit), 255, font, anchor="mm", stroke_width=stroke)
    if stroke == 0 and rng.random() < 0.3:
        canvas = canvas.filter(ImageFilter.MinFilter(3))
    box = canvas.getbbox()
    if box is None:  # the strokes were so thin that the filter wiped them out
        return _draw(digit, rng)
    # The ink itself is centred and fills most of the height, as in scans that were cropped to the digit.
    glyph = canvas.crop(box)
    height = int(rng.uniform(0.78, 0.98) * CANVAS)
    width = int(np.clip(glyph.width * height / glyph.height * rng.uniform(0.8, 1.35), 6, CANVAS * 0.95))
    centred = Image.new("L", (CANVAS, CANVAS), 0)
    centred.paste(
        glyph.resize((width, height), Image.Resampling.BILINEAR), ((CANVAS - width) // 2, (CANVAS - height) // 2)
    )
    return np.asarray(centred, dtype=np.float64) / 255


def _warp(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Applies an affine warp (rotation, shear, scale, shift) and an elastic warp (Simard et al., 2003).

    Each pixel of the result is looked up at its place in the original (inverse mapping).
    """
    angle = np.deg2rad(rng.normal(0, 8))
    shear = rng.normal(0, 0.18)
    scale = rng.uniform(0.9, 1.15, 2)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[1, 0], [shear, 1]]) @ np.diag(scale)
    centre = (CANVAS - 1) / 2
    grid = np.stack(np.meshgrid(np.arange(CANVAS), np.arange(CANVAS), indexing="ij")).reshape(2, -1) - centre
    source = matrix @ grid + centre + rng.normal(0, 0.03 * CANVAS, (2, 1))
    smoothness = rng.uniform(8, 14)
    for axis in range(2):
        field = gaussian_filter(rng.uniform(-1, 1, (CANVAS, CANVAS)), smoothness)
        source[axis] += (field / (np.abs(field).max() + 1e-9)).reshape(-1) * rng.uniform(0, 9)
    return map_coordinates(ink, source, order=1, mode="constant").reshape(CANVAS, CANVAS)


def _shrink(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """Resizes to (size, size).

    Half of the images are first shrunk further, so that they look like coarse scans and thumbnails.
    """
    if rng.random() < 0.5:
        coarse = int(rng.integers(size // 4, size // 2 + 1))
        image = image.resize((coarse, coarse), Image.Resampling.BOX)
        return image.resize((size, size), Image.Resampling.BICUBIC)
    return image.resize((size, size), Image.Resampling.BOX)


def _colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The colours (background, ink), each with three values from 0 to 1. Half of the images are white on black.

    The others have two random colours that can be told apart.
    """
    if rng.random() < 0.5:
        return np.full(3, 0.0), np.full(3, rng.uniform(0.85, 1.0))
    while True:
        background, foreground = rng.uniform(0, 1, 3), rng.uniform(0, 1, 3)
        if abs(background.mean() - foreground.mean()) > 0.3:
            return background, foreground


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", GLYPH)
