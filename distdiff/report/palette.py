"""The colours of pages and of the figures in them, each with its value on light and on dark ground."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """A colour by the name of its CSS variable. Figures are drawn with `light`, which a page replaces by the variable."""

    name: str
    light: str
    dark: str

    @property
    def variable(self) -> str:
        """The colour as CSS. Where a page defines no such variable, as in a file of its own, it is the light one."""
        return f"var(--{self.name}, {self.light})"


INK, MUTED, GRID, GROUND = "#1c2126", "#59626b", "#d5dade", "#ffffff"
SERIES = ("#0b63b5", "#b54a08", "#1a7a48", "#7a3fb0", "#b5285a", "#0b7480", "#6a6600", "#7c4b2b")  # of lines and dots
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")  # so that nothing is told by colour alone
# Seven steps from low to high. Text in INK is legible on the first four, and text in GROUND on the last three.
SCALE = ("#eef6fb", "#cfe5f2", "#a9d0e6", "#80b9d9", "#2a74a8", "#1d5a89", "#123f6b")
ON_SCALE = (INK,) * 4 + (GROUND,) * 3

_DARK_SERIES = ("#6cb0f5", "#f0994f", "#5bc58c", "#c39af0", "#f07fa8", "#4fc3cf", "#cfc44a", "#d3a07a")
_DARK_SCALE = ("#1b2a36", "#22384a", "#294a63", "#315e7f", "#5fa3d0", "#93c6e8", "#d0e9fa")

PALETTE = (
    Colour("ink", INK, "#e6e9ec"),
    Colour("muted", MUTED, "#a3adb8"),
    Colour("grid", GRID, "#39424b"),
    Colour("ground", GROUND, "#14181c"),
    Colour("surface", "#f3f5f7", "#1f252b"),
    Colour("link", "#0a58a5", "#80b9f7"),
    *(Colour(f"series-{place}", *pair) for place, pair in enumerate(zip(SERIES, _DARK_SERIES, strict=True))),
    *(Colour(f"scale-{place}", *pair) for place, pair in enumerate(zip(SCALE, _DARK_SCALE, strict=True))),
)


def variables(dark: bool) -> str:
    """The declarations of all colours as CSS variables."""
    return " ".join(f"--{colour.name}: {colour.dark if dark else colour.light};" for colour in PALETTE)
