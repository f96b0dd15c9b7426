"""Figures for pages: matplotlib draws them, and a page shows them as SVG elements that follow its light or dark colours."""

import hashlib
import io
import re
import warnings
from contextlib import AbstractContextManager
from xml.etree import ElementTree

from cycler import cycler
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from distdiff.report.palette import GRID, GROUND, INK, MUTED, PALETTE, SCALE, SERIES
from distdiff.wording import printable

SMALLEST = 0.7  # of its own width, to which a narrow screen scales a figure down; from there on it scrolls
LONGEST = 28  # characters of a name in a figure; the table beside it has the whole name
COLOUR_MAP = ListedColormap(SCALE, "distdiff")
STYLE = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.prop_cycle": cycler(color=SERIES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": GROUND,
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, and is wide: a browser's own font fits into its place
    "font.size": 9.5,
    "grid.color": GRID,
    "legend.frameon": False,
    "savefig.facecolor": GROUND,
    "svg.fonttype": "none",  # text stays text: small, and in the browser's fonts, which know all scripts
    "svg.hashsalt": "distdiff",  # the same figure is the same text
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}
NAMESPACE, XLINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}"
METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # left out
HEX = re.compile(r"#[0-9a-fA-F]{6}\b")
FONT = re.compile(r"font-family: [^;]+")
VARIABLES = {colour.light: colour.variable for colour in PALETTE}
VARIABLES |= {"#000000": VARIABLES[INK]}  # matplotlib's own black; its white is GROUND


def styled() -> AbstractContextManager:
    """The style in which figures are drawn: `with styled(): figure = Figure(...)`, or `@styled()` above a function."""
    return rc_context(STYLE)


def label(name: str, longest: int = LONGEST) -> str:
    """A name as matplotlib shows it: on one line, not as a formula, and cut if it is longer than `longest`.

    It is cut in the middle, since names that are long often differ at their end only.

    >>> label("cost in $ or $"), label("guidance_of_ones_own@10", longest=12)
    ('cost in \\\\$ or \\\\$', 'guidanc…n@10')
    """
    text = printable(name)
    if len(text) > longest:
        tail = longest // 3
        text = f"{text[: longest - tail - 1]}…{text[-tail:]}"
    return text.replace("$", r"\$")


def inline(figure: Figure, title: str, description: str) -> Markup:
    """The figure as an SVG element for a page, with a title and a description for those who do not see it.

    Raises `ValueError` if the figure has a colour that is not in the palette, which would not follow the page's colours.
    """
    root = ElementTree.fromstring(_drawn(figure))
    mark = _keep_apart(root)
    for element in root.iter():
        for name in ("style", "fill", "stroke", "stop-color"):
            if name in element.attrib:
                element.set(name, FONT.sub("font-family: system-ui, sans-serif", _themed(element.get(name))))
    _describe(root, mark, printable(title), printable(description))
    ElementTree.register_namespace("", NAMESPACE)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _drawn(figure: Figure) -> str:
    file = io.StringIO()
    with styled(), warnings.catch_warnings():
        # A browser has the characters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(file, format="svg", metadata=METADATA)  # this uses its own canvas, not the current backend
    text = file.getvalue()
    return text[text.index("<svg") :]


def _themed(style: str) -> str:
    def variable(found: re.Match) -> str:
        try:
            return VARIABLES[found[0].lower()]
        except KeyError:
            raise ValueError(f"the colour {found[0]} of a figure is not in distdiff.report.palette") from None

    return HEX.sub(variable, style)


def _keep_apart(root: ElementTree.Element) -> str:
    """Makes the names and the style in an SVG element its own, so that it does not meddle with others on its page.

    Returns the mark with which all names in the element begin.
    """
    mark = f"figure-{hashlib.sha256(ElementTree.tostring(root)).hexdigest()[:10]}"
    used = set()
    for element in root.iter():
        for key in list(element.attrib):
            if key == f"{XLINK}href":
                value = element.attrib.pop(key)
                used.add(value.removeprefix("#"))
                element.set("href", f"#{mark}-{value[1:]}" if value.startswith("#") else value)
            elif element.get(key).startswith("url(#"):
                used.add(name := element.get(key)[5:-1])
                element.set(key, f"url(#{mark}-{name})")
    for element in root.iter():
        if (name := element.attrib.pop("id", None)) in used and name is not None:
            element.set("id", f"{mark}-{name}")
    for defs in root.findall(f"{{{NAMESPACE}}}defs"):
        if defs.find(f"{{{NAMESPACE}}}style") is not None:  # of all elements of the page
            root.remove(defs)
    least = SMALLEST * float(root.get("width").removesuffix("pt"))
    root.set("style", f"min-width: {least:.0f}pt; stroke-linejoin: round; stroke-linecap: butt; fill: {INK}")
    return mark


def _describe(root: ElementTree.Element, mark: str, title: str, description: str) -> None:
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(f"{{{NAMESPACE}}}{tag}", id=f"{mark}-{tag}")
        element.text = text
        root.insert(place, element)
    root.set("role", "img")
    root.set("aria-labelledby", f"{mark}-title")
    root.set("aria-describedby", f"{mark}-desc")
