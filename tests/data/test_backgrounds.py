"""`dataset.background`: what shows through transparent pixels."""

import shutil
from pathlib import Path

import pytest
from conftest import compose
from pictures import clear, photo_folder, table, training_images

from distdiff.data.examining import identity_of
from distdiff.data.reading.background import colour
from distdiff.data.reading.options import ReadingOptions
from distdiff.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return photo_folder(tmp_path)


def test_the_background_shows_through_in_files_archives_and_tables(root: Path) -> None:
    shutil.make_archive(str(root.parent / "packed"), "zip", root)
    tables = table(root.parent / "tables", [clear()] * 4)
    for place, option in ((root, "imagefolder"), (root.parent / "packed.zip", "imagefolder"), (tables, "parquet")):
        for given, shown in (("white", (255, 255, 255)), ("#102030", (16, 32, 48)), ([4, 5, 6], (4, 5, 6))):
            images = training_images(place, option, background=given)
            position = next((i for i, key in enumerate(images.keys) if key == "clear.png"), 0)
            assert (
                images.image(position).getpixel((3, 3)) == images.square(position, 16, "pad").getpixel((8, 8)) == shown
            )


@pytest.mark.parametrize("value", ["reddish", "#10203040", 7, True, [1, 2], [1, 2, 300], [1, 2, 3.5], None, {"a": 1}])
def test_a_background_that_is_no_colour_is_one_line(value: object) -> None:
    with pytest.raises(UserError, match=r"^dataset\.background=.* is not allowed: a colour, such as white"):
        colour(value)


def test_a_background_is_checked_before_anything_loads() -> None:
    given = "dataset.background='\"rgb(1,2,3)\"'"
    assert ReadingOptions.of(compose("train", [given.replace("'", "")]).dataset).background == (1, 2, 3)
    for value in ("[1,2]", "7", "reddish"):
        with pytest.raises(UserError, match=r"^dataset\.background=.* is not allowed"):
            compose("train", ["dataset=imagefolder", "dataset.root=/nowhere", f"dataset.background={value}"])
    with pytest.raises(UserError, match=r"^dataset\.num_workers=0 is not allowed: a number at least 1"):
        compose("train", ["dataset.num_workers=0"])


def test_the_background_identifies_only_what_it_changes(root: Path) -> None:
    white, red = (training_images(root, background=name) for name in ("white", "red"))
    assert identity_of(white) != identity_of(red)
    opaque = [[p for p, key in enumerate(part.keys) if key != "clear.png"] for part in (white, red)]
    assert identity_of(white.select(opaque[0])) == identity_of(red.select(opaque[1]))
