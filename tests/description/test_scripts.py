"""Class names in any script are drawn in fonts that have them, or as escapes, and printed on every console."""

import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image, ImageChops, ImageDraw, ImageFont
from sources import expansion, load

from distdiff import lettering
from distdiff.console.quiet import escape_what_a_console_lacks
from distdiff.grids import captioned, grid
from distdiff.lettering import DEJAVU, OWN_FONTS, Lettering
from distdiff.store.reading import read_expanded

CLASSES = ("犬", "قطة", "🐶 زرافة", "👨\u200d👩", "می\u200cخواهم")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset in a folder with a Chinese name, with a class for each of `CLASSES`."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 1)):
        for name in CLASSES:
            for number in range(count):
                path = tmp_path / "资料" / split / name / f"图{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return tmp_path / "资料"


@pytest.fixture
def fonts(monkeypatch):
    """A function that makes this machine have only the given fonts, besides DejaVu Sans."""

    def have(*paths: Path) -> None:
        entries = [font_manager.FontEntry(fname=str(path), name=path.stem) for path in paths]
        monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
        monkeypatch.setattr(lettering, "_found", [])
        lettering._system_fonts.cache_clear()
        lettering._font_with.cache_clear()

    yield have
    lettering._system_fonts.cache_clear()
    lettering._font_with.cache_clear()


def font_of(path: Path, characters: str, empty: bool = False) -> Path:
    """A font whose glyph of each of these characters is a black square, or nothing."""
    names = [f"glyph{number}" for number in range(len(characters))]
    pen = TTGlyphPen(None)
    for move, point in zip(
        (pen.moveTo, pen.lineTo, pen.lineTo, pen.lineTo), ((0, 0), (0, 900), (900, 900), (900, 0)), strict=True
    ):
        move(point)
    pen.closePath()
    square, nothing = pen.glyph(), TTGlyphPen(None).glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap(dict(zip(map(ord, characters), names, strict=True)))
    builder.setupGlyf({".notdef": nothing} | dict.fromkeys(names, nothing if empty else square))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def drawn(write) -> Image.Image:
    image = Image.new("RGB", (500, 40), "white")
    write(ImageDraw.Draw(image))
    return image


def lettered(text: str) -> Image.Image:
    return drawn(lambda draw: Lettering(14).write(draw, (3, 4), text))


def plain(text: str, place: tuple[int, int] = (3, 4), anchor: str = "la") -> Image.Image:
    font = ImageFont.truetype(str(DEJAVU), 14)
    return drawn(lambda draw: draw.text(place, text, "black", font, anchor=anchor))


def same(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).getbbox() is None


def test_text_that_dejavu_has_looks_as_ever(fonts) -> None:
    fonts()
    assert same(lettered("Hündin ρ = 3 → 4"), plain("Hündin ρ = 3 → 4"))
    before = drawn(lambda draw: Lettering(14).write_before(draw, (150, 20), "dog, кошка"))
    assert same(before, plain("dog, кошка", (150, 20), "rm"))


def test_a_character_without_a_font_is_an_escape_and_never_a_box(fonts) -> None:
    fonts(OWN_FONTS / "LastResortHE-Regular.ttf", DEJAVU)
    assert same(lettered("犬 dog"), plain("\\u72ac dog"))
    assert same(lettered("\U0001f9a6"), plain("\\U0001f9a6"))
    assert same(lettered("a\udcff\n"), plain("a\\xff\\n"))


def test_a_character_is_drawn_by_a_font_that_shows_it(tmp_path: Path, fonts) -> None:
    empty, damaged = font_of(tmp_path / "a.ttf", "犬猫", empty=True), tmp_path / "b.ttf"
    damaged.write_bytes(b"no font")
    fonts(empty, damaged, tmp_path / "gone.ttf", font_of(tmp_path / "c.ttf", "犬"))
    found = np.asarray(lettered("dog 犬 cat").convert("L"))
    start = round(3 + ImageFont.truetype(str(DEJAVU), 14).getlength("dog "))
    assert (found[10:16, start + 2 : start + 10] < 50).all()  # the square
    assert np.array_equal(found[:, : start - 1], np.asarray(plain("dog").convert("L"))[:, : start - 1])
    assert same(lettered("猫"), plain("\\u732b"))  # the font that has it shows nothing


def test_what_only_joins_characters_is_not_escaped(fonts) -> None:
    fonts()
    assert same(lettered("犬\u200d\ufe0fa"), plain("\\u72aca"))


def test_heads_and_titles_of_a_grid_are_as_wide_as_they_are_drawn(fonts) -> None:
    fonts()
    tiles = grid([Image.new("RGB", (64, 64))] * 4, columns=2)
    sheet = captioned(tiles, CLASSES[:2], CLASSES[2:4])
    left = sheet.width - tiles.width
    assert left > Lettering(11).length(CLASSES[2])
    margin = np.asarray(sheet.convert("L"))[20:, :4]
    assert (margin == 255).all()  # nothing is cut off
    assert Lettering(11).length(Lettering(11).cut("犬" * 40, 60)) <= 60


def test_a_long_text_is_cut_where_it_just_fits_and_in_few_steps(fonts, monkeypatch: pytest.MonkeyPatch) -> None:
    fonts()
    asked: list[str] = []
    length = Lettering.length
    monkeypatch.setattr(Lettering, "length", lambda self, text: asked.append(text) or length(self, text))
    for text in ("犬 and dog " * 500, "a" * 5000):
        found = Lettering(11).cut(text, 300)
        assert text.startswith(found[:-1])
        assert length(Lettering(11), found) <= 300 < length(Lettering(11), f"{text[: len(found)]}…")
    assert len(asked) < 40
    assert Lettering(11).cut("wide", 1) == "…"


def test_a_dataset_in_many_scripts_is_expanded_and_read_again(folder: Path, small_run: list[str]) -> None:
    splits = load("imagefolder", folder.parent, root=str(folder), validation_fraction=0)
    assert set(splits.train.class_names) == set(CLASSES)
    job = expansion(small_run, folder, "expansion.factor=1")
    job.run("expand")
    expanded = read_expanded(job.path)
    assert set(expanded.class_names) == set(CLASSES)
    assert len(expanded) == len(job.plan)
    assert expanded.image(len(expanded) - 1).size == (32, 32)
    again = load("expanded", folder.parent, root=str(job.path)).train
    assert set(again.class_names) == set(CLASSES)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_command_ends_on_a_console_without_the_characters_of_its_classes(
    encoding: str, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding)
    place = tmp_path / "outputs"
    typed = [f"dataset.root='{folder}'", "dataset=imagefolder", "logger=none", f"paths.output_dir={place}"]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        patch.setattr(sys, "argv", ["describe.py", *typed])
        patch.setattr(sys, "path", list(sys.path))
        environment = dict(os.environ)
        try:
            runpy.run_path(str(ROOT / "experiments/describe.py"), run_name="__main__")
        finally:
            os.environ.clear()
            os.environ.update(environment)
    output.flush()
    printed = output.buffer.getvalue().decode(encoding)
    assert ("犬" if encoding == "utf-8" else "\\u72ac") in printed
    (summary,) = place.rglob("description.json")
    assert {row["name"] for row in json.loads(summary.read_text(encoding="utf-8"))["classes"]} == set(CLASSES)
    assert len(list(place.rglob("classes/*.png"))) == len(CLASSES)


def test_tables_bars_and_messages_are_printed_on_an_ascii_console() -> None:
    """In a process of its own, as a command and each of its ranks are."""
    code = """
from distdiff.console.quiet import quiet_environment
quiet_environment()
import sys
from rich.progress import track
from rich.table import Table
from distdiff.console.output import console
table = Table(title="犬"); table.add_column("ρ …"); table.add_row("– \\udcff")
console.print(table)
for _ in track(range(2), "犬", console=console): pass
print("猫", flush=True)
print("猫", file=sys.stderr)
"""
    for encoding in ("ascii", "latin-1:strict"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": encoding},
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.count(b"\\u732b") == run.stderr.count(b"\\u732b") == 1
        assert b"\\u72ac" in run.stdout


def test_a_stream_of_a_notebook_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    escape_what_a_console_lacks()
