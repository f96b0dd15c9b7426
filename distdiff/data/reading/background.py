"""`dataset.background`: the colour shown where an image is transparent."""

from collections.abc import Sequence
from typing import Any

from PIL import ImageColor

from distdiff.errors import UserError

ALLOWED = 'a colour, such as white, #808080 or "rgb(1,2,3)", or [red, green, blue] of 0 to 255'


def colour(value: Any) -> tuple[int, int, int]:
    """(red, green, blue) from a text that PIL.ImageColor knows, or from a list of the three values.

    Raises `UserError` for any other value.
    """
    found: tuple = ()
    if isinstance(value, str):
        try:
            found = ImageColor.getrgb(value)
        except ValueError:
            found = ()
    elif isinstance(value, Sequence):
        found = tuple(value)
    if len(found) != 3 or not all(type(level) is int and 0 <= level <= 255 for level in found):
        raise UserError(f"dataset.background={value} is not allowed: {ALLOWED}")
    return found
