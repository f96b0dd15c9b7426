"""Pages that need no other file: the templates, the script that sorts tables, and what a browser may do with a page."""

import base64
import functools
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from distdiff.report.palette import variables

NOTHING = ("", "–", "nan")  # what a cell without a value shows
NUMBER = re.compile(r"[<>≤≥~\[]?\s*([+\-−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?)(?![\w.])", re.IGNORECASE)
SIDE = 96  # pixels: the largest side of an image in a page
LONG = 24  # characters; the text of a longer cell that names its row may go on below
TALL = 25  # rows; a longer table scrolls under its titles


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and the number by which it is sorted; None if its column is sorted by its text, or if it is empty."""

    text: str
    value: float | None = None

    @property
    def is_long(self) -> bool:
        return len(self.text) > LONG


@dataclass(frozen=True)
class SortableTable:
    """The titles of a table, for each column whether it holds numbers, and its rows."""

    titles: Sequence[str]
    is_number: Sequence[bool]
    rows: Sequence[Sequence[Cell]]

    @property
    def is_tall(self) -> bool:
        return len(self.rows) > TALL


def write_page(template: str, path: Path, /, **values: Any) -> None:
    """Fills a template of the folder `templates`, and writes the page to `path`. All text in `values` is escaped."""
    path.write_text(render(template, **values), encoding="utf-8", errors="backslashreplace")


def render(template: str, /, **values: Any) -> str:
    """A template of the folder `templates`, filled. It extends `base.html`, and may use the macros in `parts.html`."""
    return _environment().get_template(template).render(**values)


def sortable(rows: Sequence[Sequence[str]]) -> SortableTable:
    """A table from its titles and rows of text. A column holds numbers if each cell that has a value begins with one."""
    titles, *body = rows
    columns = [[_number(row[place]) for row in body] for place in range(len(titles))]
    is_number = [
        any(value is not None for value in column)
        and all(value is not None or row[place].strip() in NOTHING for value, row in zip(column, body, strict=True))
        for place, column in enumerate(columns)
    ]
    return SortableTable(
        [title.replace(" ↑", "\N{NO-BREAK SPACE}↑").replace(" ↓", "\N{NO-BREAK SPACE}↓") for title in titles],
        is_number,
        [
            [Cell(text, columns[place][line] if is_number[place] else None) for place, text in enumerate(row)]
            for line, row in enumerate(body)
        ],
    )


def embedded(image: Image.Image) -> str:
    """An image as the address of its own content: at most `SIDE` pixels a side, a PNG if it is no larger, else a JPEG."""
    if max(image.size) <= SIDE:
        return data_uri(image, "PNG", optimize=True)
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return data_uri(small, "JPEG", quality=85)


def data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    """An image as the address of its own content, saved as a `kind` ("PNG", "JPEG") with Pillow's `options`."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _number(text: str) -> float | None:
    """The number with which a text begins.

    >>> _number("+0.012 ± 0.034"), _number("<0.001"), _number("1,234"), _number("–"), _number("3rd")
    (0.012, 0.001, 1234.0, None, None)
    """
    found = NUMBER.match(text.strip())
    return None if found is None else float(found[1].replace(",", "").replace("−", "-"))


@functools.cache
def _environment() -> Environment:
    """The templates. A name that a template uses and no one gave is an error."""
    loader = PackageLoader("distdiff", "report/templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (Markup(loader.get_source(environment, name)[0]) for name in ("style.css", "sorting.js"))
    environment.globals |= {
        "style": style,
        "script": script,
        "policy": _policy(script),
        "light": Markup(variables(dark=False)),
        "dark": Markup(variables(dark=True)),
        "sortable": sortable,
        "embedded": embedded,
    }
    return environment


def _policy(script: str) -> str:
    """What the page may load: nothing but itself and images that are in it. Of scripts only ours runs."""
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{known}'; "
        "base-uri 'none'; form-action 'none'"
    )
