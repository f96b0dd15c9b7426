"""Writes names in any script onto images, in fonts of this machine that have their characters."""

import functools
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from PIL import ImageDraw, ImageFont

from distdiff.wording import JOINERS, printable

OWN_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
DEJAVU = OWN_FONTS / "DejaVuSans.ttf"  # Pillow's own font lacks Greek letters
# Some fonts show every character as a box, or as nothing.
PLACEHOLDERS = ("lastresort", "last resort", "adobe blank", "adobeblank", "notdef")
Font = ImageFont.FreeTypeFont


class Lettering:
    """Text of one size, in black.

    A character that DejaVu Sans lacks is taken from another font of this machine. If no font has it, its escape is
    written, such as \\u4e2d. Letters are not shaped, and stand from left to right.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._font = _font(DEJAVU, size)

    @property
    def height(self) -> int:
        return sum(self._font.getmetrics())

    def length(self, text: str) -> float:
        return sum(font.getlength(part) for part, font in self._parts(text))

    def cut(self, text: str, width: float) -> str:
        """The text, of which the end is replaced by an ellipsis if it is wider than `width`."""
        text = printable(text)
        if self.length(text) <= width:
            return text
        fitting = bisect_right(range(len(text)), width, key=lambda end: self.length(f"{text[:end]}…"))
        return f"{text[: max(fitting - 1, 0)]}…"

    def write(self, draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str) -> None:
        """Writes the text with its upper left corner at `place`."""
        left, baseline = place[0], place[1] + self._font.getmetrics()[0]
        for part, font in self._parts(text):  # parts in different fonts stand on one line
            draw.text((left, baseline), part, "black", font, anchor="ls")
            left += font.getlength(part)

    def write_before(self, draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str) -> None:
        """Writes the text to the left of `place`, which is level with the middle of its height."""
        match list(self._parts(text)):
            case [(whole, font)]:
                draw.text(place, whole, "black", font, anchor="rm")
            case _:
                self.write(draw, (place[0] - self.length(text), place[1] - self.height / 2), text)

    def _parts(self, text: str) -> Iterator[tuple[str, Font]]:
        """The text in parts, each with the font that has all of its characters."""
        part, font = "", self._font
        for char in printable(text):
            found = font if part and _ignorable(char) else self._font_of(char)
            if found is None:
                if _ignorable(char):
                    continue
                char, found = char.encode("unicode_escape").decode(), self._font
            if found is not font and part:
                yield part, font
                part = ""
            part, font = part + (char if not _ignorable(char) or _has(font, char) else ""), found
        if part:
            yield part, font

    def _font_of(self, char: str) -> Font | None:
        if _has(self._font, char):
            return self._font
        path = _font_with(char)
        return None if path is None else _font(path, self.size)


def _ignorable(char: str) -> bool:
    """Whether a character only says how the one before it is shown."""
    return char in JOINERS or "\ufe00" <= char <= "\ufe0f"


@functools.cache
def _font(path: Path, size: int) -> Font:
    return ImageFont.truetype(str(path), size)


@functools.cache
def _has(font: Font, char: str) -> bool:
    """Whether a font shows a character, and not as a box or as nothing."""
    if char.isspace() or unicodedata.combining(char):
        return _maps(Path(font.path), char)
    return _maps(Path(font.path), char) and font.getmask(char).getbbox() is not None


def _maps(path: Path, char: str) -> bool:
    return _charmap(path).get_char_index(ord(char)) != 0


@functools.lru_cache(maxsize=32)
def _charmap(path: Path):
    from matplotlib.ft2font import FT2Font

    return FT2Font(str(path))


@functools.cache
def _font_with(char: str) -> Path | None:
    """A font of this machine that shows a character. Fonts that were found for other characters are tried first."""
    for path in (*_found, *(path for path in _system_fonts() if path not in _found)):
        try:
            if _has(_font(path, 11), char):
                if path not in _found:
                    _found.append(path)
                return path
        except Exception:  # a font of another kind, such as one of bitmaps, or a damaged one
            continue
    return None


_found: list[Path] = []


@functools.cache
def _system_fonts() -> tuple[Path, ...]:
    """The fonts that matplotlib finds on this machine, upright and of usual weight first."""
    try:
        from matplotlib.font_manager import fontManager, weight_dict
    except Exception:  # its list of fonts cannot be made, for example
        return ()

    def order(font) -> tuple:
        weight = font.weight if isinstance(font.weight, int) else weight_dict.get(font.weight, 400)
        return font.style != "normal", abs(weight - 400), font.name, font.fname

    fonts = [font for font in fontManager.ttflist if not _is_placeholder(font.name, font.fname)]
    return tuple(dict.fromkeys(Path(font.fname) for font in sorted(fonts, key=order)))


def _is_placeholder(name: str, file: str) -> bool:
    own = Path(file).parent == OWN_FONTS  # besides DejaVu, it holds mathematical symbols and boxes
    return own or any(word in f"{name} {Path(file).name}".lower() for word in PLACEHOLDERS)
