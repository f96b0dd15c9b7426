"""The shell of pages: nothing is loaded, everything is escaped, tables can be sorted."""

import base64
import fnmatch
import hashlib
import io
import re
import tomllib
from pathlib import Path

import pytest
from html_pages import Page
from jinja2 import UndefinedError
from PIL import Image

import distdiff
from distdiff.report import page as pages
from distdiff.report.page import embedded, render, sortable, write_page
from distdiff.report.palette import PALETTE

NASTY = "<script>alert(1)</script>\" onload='x' &amp; ${7*7} {{ 7*7 }} \udcff"
TRIAL = (
    '{% extends "base.html" %}{% from "parts.html" import table, figure, picture %}'
    "{% block title %}{{ name }}{% endblock %}"
    "{% block content %}<h1>{{ name }}</h1>{{ table(rows, name) }}"
    "{% call figure(svg, name) %}{{ name }}{% endcall %}{{ picture(image, name) }}{% endblock %}"
)


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a page with a name everywhere, and reads it."""
    template = pages._environment().from_string(TRIAL)
    monkeypatch.setattr(pages, "render", lambda _, /, **values: template.render(**values))

    def make(name: str, rows: list[list[str]] | None = None) -> Page:
        rows = rows or [[name, "n"], [name, "1"]]
        image = Image.new("RGB", (8, 8))
        write_page("trial.html", tmp_path / "trial.html", name=name, rows=rows, svg="", image=image)
        return Page((tmp_path / "trial.html").read_text(encoding="utf-8"))

    return make


def test_names_from_anywhere_are_text_and_never_markup(trial) -> None:
    page, plain = trial(NASTY), trial("a" * len(NASTY))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert [sorted(attributes) for _, attributes in page.tags] == [sorted(attributes) for _, attributes in plain.tags]
    assert page.scripts == plain.scripts
    assert (
        page.text.count("<script>alert(1)</script>\" onload='x' &amp; ${7*7} {{ 7*7 }} \\udcff") == 5
    )  # title to caption


def test_a_page_loads_nothing_and_runs_no_script_but_its_own(trial) -> None:
    page = trial("a name")
    assert page.addresses() == []
    assert page.all("link") == page.all("iframe") == []
    (policy,) = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    (script,) = page.scripts
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{known}'"


def test_the_reader_of_pages_sees_what_would_be_loaded() -> None:
    for text in (
        '<img src="https://a.example/x.png">',
        "<style>@import 'x.css';</style>",
        '<p style="background: url(https://a.example)"></p>',
        '<a href="http://a.example">a</a>',
    ):
        assert Page(text).addresses(), text
    assert Page('<img src="data:image/png;base64,AA"><a href="#top">top</a>').addresses() == []


def test_each_colour_has_a_value_for_light_and_for_dark_pages(trial) -> None:
    style = "".join(trial("a name").styles)
    light, dark = (style[style.index(start) :].split("}")[0] for start in (":root {", "@media screen and"))
    assert "prefers-color-scheme: dark" in dark
    for colour in PALETTE:
        assert f"--{colour.name}: {colour.light};" in light
        assert f"--{colour.name}: {colour.dark};" in dark
    used = set(re.findall(r"var\(--([\w-]+)", style))
    assert used <= {colour.name for colour in PALETTE}
    assert not re.search(r"#[0-9a-f]{3,8}\b", style.rsplit("}", 1)[0].split(dark)[1])  # no colour besides these


def test_columns_of_numbers_are_known_and_sorted_by_their_value() -> None:
    titles = ["name", "mean ↓", "p", "mixed", "interval", "empty"]
    found = sortable(
        [
            titles,
            ["10", "1,234 ± 5", "<0.001", "3.1 s", "[-0.2, +0.1]", "–"],
            ["9", "−2.5*", "0.5", "found in the cache", "[+0.1, +0.2]", ""],
            ["b", "+1e-05", "–", "2 s", "–", "–"],
        ]
    )
    assert dict(zip(titles, found.is_number, strict=True)) == {
        "name": False,
        "mean ↓": True,
        "p": True,
        "mixed": False,
        "interval": True,
        "empty": False,
    }
    values = [[row[column].value for row in found.rows] for column in range(len(titles))]
    assert values[1:3] == [[1234.0, -2.5, 1e-05], [0.001, 0.5, None]]
    assert values[4] == [-0.2, 0.1, None]
    assert values[0] == values[3] == [None] * 3
    assert found.titles[1] == "mean\N{NO-BREAK SPACE}↓"


def test_a_table_is_sortable_and_stands_in_a_box_that_scrolls_and_can_be_focused(trial) -> None:
    page = trial("results", [["method", "accuracy"], *([f"row {place}", f"0.{place:02}"] for place in range(26))])
    box, _ = (div for div in page.all("div") if "scroll" in div["class"])
    assert box == {"class": "scroll tall", "role": "region", "aria-label": "results", "tabindex": "0"}
    assert page.all("table") == [{"class": "sortable"}]
    heads = page.all("th")
    assert heads[:2] == [{"scope": "col"}, {"scope": "col", "class": "number"}]
    assert heads[2:] == [{"scope": "row"}] * 26
    cells = page.all("td")
    assert [float(cell["data-sort"]) for cell in cells] == pytest.approx([place / 100 for place in range(26)])
    (short, *_) = (div for div in trial("results").all("div") if "scroll" in div["class"])
    assert short["class"] == "scroll"
    assert page.all("button") == []  # without the script there is nothing that does nothing
    assert "aria-sort" in page.scripts[0]
    assert 'createElement("button")' in page.scripts[0]


def test_a_template_that_lacks_a_value_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("report.html")


def test_an_installed_package_has_all_files_of_pages() -> None:
    package = Path(distdiff.__file__).parent
    settings = tomllib.loads((package.parent / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["distdiff"]
    files = [path.relative_to(package).as_posix() for path in (package / "report" / "templates").iterdir()]
    assert {"report/templates/base.html", "report/templates/sorting.js", "report/templates/style.css"} <= set(files)
    assert [name for name in files if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []


@pytest.mark.parametrize(("size", "kind", "shown"), [((32, 20), "png", (32, 20)), ((400, 200), "jpeg", (96, 48))])
def test_an_image_in_a_page_is_exact_if_it_is_small_and_small_if_it_is_large(size, kind, shown) -> None:
    image = Image.effect_noise(size, 50).convert("RGB")
    address = embedded(image)
    start = f"data:image/{kind};base64,"
    assert address.startswith(start)
    read = Image.open(io.BytesIO(base64.b64decode(address.removeprefix(start))))
    assert read.size == shown
    assert (kind == "jpeg") or read.convert("RGB").tobytes() == image.tobytes()
