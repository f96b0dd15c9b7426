"""Figures in pages: they follow light and dark, can be read without seeing, and show any name as it is."""

import re
import warnings
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from distdiff.report.figures import COLOUR_MAP, inline, label, styled
from distdiff.report.palette import INK, ON_SCALE, PALETTE, SCALE, SERIES

SVG = "{http://www.w3.org/2000/svg}"
HEX = re.compile(r"#[0-9a-fA-F]{3,8}\b")
NAMES = ("_hidden", "$\\frac{", "cost in $ or $", "漢字", "a\nb\x00\udcff", "<b>&amp;", "n" * 300)


@styled()
def figure_of(*names: str) -> Figure:
    """Lines, a band, dots in the colours of the scale with their bar, a legend and labels."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    lines = [axes.plot([0, 1], [place, 2], marker="s")[0] for place, _ in enumerate(names)]
    axes.axvspan(0, 0.5, color=INK, alpha=0.1)
    axes.axhline(1, color="black")
    figure.colorbar(axes.scatter(range(7), range(7), c=range(7), cmap=COLOUR_MAP))
    axes.legend(lines, [label(name) for name in names])
    axes.set_xlabel(label(names[0]))
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    return figure


def colours(svg: str) -> list[str]:
    """The colours that no variable stands for, in whatever attribute."""
    root = ElementTree.fromstring(svg)
    values = [value for element in root.iter() for name, value in element.attrib.items() if name not in ("id", "href")]
    return HEX.findall(" ".join(re.sub(r"var\(--[\w-]+, #[0-9a-f]{6}\)", "", value) for value in values))


def test_every_colour_of_a_figure_follows_the_page() -> None:
    svg = inline(figure_of("one", "two"), "A title", "A description.")
    assert colours(svg) == []
    used = set(re.findall(r"var\(--([\w-]+)", svg))
    assert {"ink", "ground", "muted", "series-0", "series-1", "scale-0", "scale-6"} <= used
    assert used <= {colour.name for colour in PALETTE}
    for colour in PALETTE:  # what stands behind the name is the light value, for a file of its own
        assert set(re.findall(rf"var\(--{colour.name}, (#\w+)\)", svg)) <= {colour.light}


def test_a_colour_that_would_not_follow_the_page_is_an_error() -> None:
    figure = figure_of("one")
    figure.axes[0].plot([0, 1], [0, 1], color="tab:red")
    with pytest.raises(ValueError, match=r"#d62728 of a figure is not in distdiff\.report\.palette"):
        inline(figure, "A title", "A description.")
    assert colours('<svg xmlns="http://www.w3.org/2000/svg" style="fill: #d62728"/>') == ["#d62728"]


def test_a_figure_has_a_title_and_a_description() -> None:
    root = ElementTree.fromstring(inline(figure_of("one"), "A <title>", "A & description."))
    assert root.get("role") == "img"
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert (title.text, description.text) == ("A <title>", "A & description.")
    assert root.get("aria-labelledby") == title.get("id")
    assert root.get("aria-describedby") == description.get("id")


def test_figures_on_one_page_do_not_meddle_with_each_other() -> None:
    marks = []
    for names in (("one",), ("one", "two")):
        svg = inline(figure_of(*names), "A title", "A description.")
        assert svg == inline(figure_of(*names), "A title", "A description.")  # the same figure is the same text
        root = ElementTree.fromstring(svg)
        own = [element.get("id") for element in root.iter() if element.get("id")]
        asked = [*re.findall(r"url\(#([^)]+)\)", svg), *re.findall(r'href="#([^"]+)"', svg)]
        assert asked
        assert set(asked) <= set(own)
        assert len(own) == len(set(own))
        assert root.find(f".//{SVG}style") is None
        marks.append(set(own))
    assert marks[0].isdisjoint(marks[1])


def test_a_figure_shows_any_name_as_it_is_written() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = ElementTree.fromstring(inline(figure_of(*NAMES), "\x00\udcff", "a\nb"))
    texts = ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]
    cut = "n" * 18 + "…" + "n" * 9
    for name in ("_hidden", "$\\frac{", "cost in $ or $", "漢字", "a\\nb\\x00\\xff", "<b>&amp;", cut):
        assert texts.count(name) >= 2, (name, texts)


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_colours_are_told_apart_from_what_they_stand_on(is_dark: bool) -> None:
    """WCAG 2.2: 4.5 for text and 3 for what is drawn."""
    shown = {colour.name: colour.dark if is_dark else colour.light for colour in PALETTE}
    names = {colour.light: colour.name for colour in PALETTE}
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for text in ("ink", "muted", "link"):
        for ground in ("ground", "surface"):
            assert contrast(shown[text], shown[ground]) >= 4.5, (text, ground)
    for colour in SERIES:
        assert contrast(shown[names[colour]], shown["ground"]) >= 3, colour
    for step, text in zip(SCALE, ON_SCALE, strict=True):
        assert contrast(shown[names[step]], shown[names[text]]) >= 4.5, (step, text)
    assert len({colour.light for colour in PALETTE}) == len(PALETTE)  # each is found again by its light value
