"""Lays images out side by side."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from distdiff.lettering import Lettering

GAP = 2
SMALLEST_TEXT = 11  # pixels


def grid(images: Sequence[Image.Image], columns: int, side: int | None = None) -> Image.Image:
    """Lays out images row by row on white.

    If `side` is given, each image is resized to a square of `side` pixels a side, otherwise to the size of the first
    image.
    """
    width, height = (side, side) if side else images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        tile = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(tile, (column * (width + GAP), row * (height + GAP)))
    return sheet


def captioned(sheet: Image.Image, heads: Sequence[str], titles: Sequence[str]) -> Image.Image:
    """The grid `sheet` with `heads` above its columns and `titles` to the left of its rows.

    Heads wider than their column are cut.
    """
    width, height = ((size + GAP) // len(names) for size, names in zip(sheet.size, (heads, titles), strict=True))
    lettering = Lettering(max(SMALLEST_TEXT, width // 8))  # a large grid is viewed scaled down
    margin = 2 * GAP
    left = 2 * margin + math.ceil(max(map(lettering.length, titles)))
    top = 2 * margin + lettering.height
    whole = Image.new("RGB", (left + sheet.width, top + sheet.height), "white")
    whole.paste(sheet, (left, top))
    draw = ImageDraw.Draw(whole)
    for column, head in enumerate(heads):
        lettering.write(draw, (left + column * width, margin), lettering.cut(head, width - margin))
    for row, title in enumerate(titles):
        lettering.write_before(draw, (left - margin, top + row * height + height // 2), title)
    return whole
