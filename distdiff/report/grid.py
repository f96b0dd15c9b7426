"""Images side by side."""

from collections.abc import Sequence

from PIL import Image

GAP = 2


def grid(images: Sequence[Image.Image], columns: int, side: int | None = None) -> Image.Image:
    """Lays equally sized images out row by row on white, each enlarged or shrunk to `side` pixels if given."""
    width, height = (side, side) if side else images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        tile = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(tile, (column * (width + GAP), row * (height + GAP)))
    return sheet
