"""The contact sheet of one source."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from distdiff.lettering import Lettering
from distdiff.preview.tiles import Tile

SMALLEST, LARGEST = 128, 512  # pixels per side of a tile
LONGEST = 24  # the largest number of characters of a caption
GAP, TITLE, HEADER, CAPTION = 6, 30, 22, 20


def contact_sheet(source: Image.Image, rows: Sequence[Sequence[Tile]], title: str) -> Image.Image:
    """The source and, to its right, the images made from the source, in one row per strength and one column per ρ.

    Below each of these images is its `caption`.
    """
    side = tile_side(source.width)
    columns = 1 + len(rows[0])
    sheet = Image.new("RGB", place(columns, len(rows), side), "white")
    draw, text = ImageDraw.Draw(sheet), Lettering(11)
    Lettering(14).write(draw, (GAP, GAP), title)
    text.write(draw, (GAP, TITLE), "source")
    sheet.paste(_resized(source, side), place(0, 0, side))
    for column, tile in enumerate(rows[0], start=1):
        name = "unguided" if tile.rho is None else f"ρ = {tile.rho:g}"
        text.write(draw, (place(column, 0, side)[0], TITLE), name)
    for row, tiles in enumerate(rows):
        left, top = place(0, row, side)
        if (strength := tiles[0].item.strength) is not None:
            text.write(draw, (left, top + side + 2), f"strength {strength:g}")
        for column, tile in enumerate(tiles, start=1):
            left, top = place(column, row, side)
            sheet.paste(_resized(tile.image, side), (left, top))
            text.write(draw, (left, top + side + 2), caption(tile))
    return sheet


def place(column: int, row: int, side: int) -> tuple[int, int]:
    """The upper left corner (x, y) of a tile. For the indices one past the last column and row, this is the sheet's size."""
    return GAP + column * (side + GAP), TITLE + HEADER + row * (side + CAPTION + GAP)


def tile_side(size: int) -> int:
    """The side, in pixels, at which images of `size` pixels are shown. Small images are enlarged by a whole factor."""
    return min(LARGEST, size * -(-SMALLEST // size))


def caption(tile: Tile) -> str:
    """The energies before and after guidance, or the tile's sources if the method measures no energies."""
    if "energy_after" in tile.values:
        return f"E {tile.values['energy_before']:.2f} → {tile.values['energy_after']:.2f}"
    return ", ".join(tile.item.sources)[:LONGEST]


def _resized(image: Image.Image, side: int) -> Image.Image:
    method = Image.Resampling.NEAREST if side >= image.width else Image.Resampling.LANCZOS
    return image if image.width == side else image.resize((side, side), method)
