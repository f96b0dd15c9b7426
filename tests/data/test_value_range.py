"""`dataset.value_range`: 10, 12 or 14 bits in 16-bit files are not black, and one range holds for a whole dataset."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import compose
from pictures import photo_folder, table, training_images
from PIL import Image
from sources import configured, load

from distdiff.api import load_images
from distdiff.commands.describe import describe
from distdiff.data import examining, readable
from distdiff.data.cache.examined import Examined, Seen
from distdiff.data.datasets import load_dataset
from distdiff.data.examining import examine, identity_of
from distdiff.data.images import LabelledImages
from distdiff.data.reading.decoding import Facts, facts_of, read_image
from distdiff.data.reading.options import ReadingOptions
from distdiff.data.reading.value_range import ValueRange
from distdiff.data.splits.few_shot import draw_few_shot
from distdiff.errors import UserError


def grey(path: Path, *values: float, dtype: type = np.uint16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([values], dtype)).save(path)
    return path


def scans(top: Path, largest: int, suffix: str = ".png") -> Path:
    """Two classes of three training images and one test image. Only the last training image reaches `largest`."""
    for cls in "ab":
        for number in range(3):
            grey(top / f"train/{cls}/{number}{suffix}", 0, largest // 4 * (1 + number), largest // 2)
        grey(top / f"test/{cls}/0{suffix}", 0, largest // 2, min(2 * largest, 65535))
    grey(top / f"train/b/2{suffix}", 0, largest // 2, largest)
    return top


def levels(images: LabelledImages, key: str) -> list[int]:
    """The grey levels of the last image with this key."""
    (*_, position) = (position for position, name in enumerate(images.keys) if name == key)
    return np.asarray(images.image(position))[0, :, 0].tolist()


@pytest.mark.parametrize(
    ("largest", "white"), [(200, 255), (255, 255), (700, 1023), (4095, 4095), (9000, 16383), (30000, 65535)]
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_white_is_the_largest_value_of_the_smallest_number_of_bits(
    largest: int, white: int, suffix: str, tmp_path: Path
) -> None:
    splits = load("imagefolder", tmp_path, root=str(scans(tmp_path / "scans", largest, suffix)), validation_fraction=0)
    expected = [0, round(largest // 2 * 255 / white), round(largest * 255 / white)]
    assert levels(splits.train, f"2{suffix}") == expected
    assert levels(splits.test, f"0{suffix}")[1] == expected[1]
    assert levels(splits.test, f"0{suffix}")[2] == min(255, round(min(2 * largest, 65535) * 255 / white))


def test_a_part_of_the_training_images_has_the_range_of_all_of_them(tmp_path: Path) -> None:
    keys = {"root": str(scans(tmp_path / "scans", 4095)), "validation_fraction": 0}
    for part in ({"indices": [0, 3]}, {"max_images": 2}, {"fraction": 0.3}, {"num_folds": 2, "fold": 1}):
        images = load("imagefolder", tmp_path, **keys, **part).train
        position = int(np.flatnonzero(images.labels == 0)[0])
        number = int(images.keys[position][0])
        assert np.asarray(images.image(position))[0, 1, 0] == round(4095 // 4 * (1 + number) * 255 / 4095)
    pool = load("imagefolder", tmp_path, **keys).train
    drawn = [draw_few_shot(pool, 1, seed) for seed in range(4)]
    assert len({identity_of(images) for images in drawn}) > 1
    assert {images.options.value_range.known for images in drawn} == {(0, 4095)}


def test_nothing_is_looked_at_until_an_image_needs_it(tmp_path: Path, monkeypatch) -> None:
    looked = []
    monkeypatch.setattr(examining, "facts_of", lambda file, *more: looked.append(file) or facts_of(file, *more))
    images = load("imagefolder", tmp_path, root=str(scans(tmp_path / "scans", 4095))).train
    assert not looked
    images.image(0)
    assert looked
    looked.clear()
    again = load("imagefolder", tmp_path, root=str(tmp_path / "scans")).train
    again.image(0)
    assert not looked  # it is remembered below paths.cache_dir
    photos = training_images(photo_folder(tmp_path))
    photos.image(0)
    assert photos.options.value_range.known is None
    assert not looked


def test_images_of_eight_bits_keep_their_identity_under_every_range(tmp_path: Path) -> None:
    root = photo_folder(tmp_path)
    for given in ("auto", "full", [0, 100]):
        images = training_images(root, value_range=given)
        digest = hashlib.sha256(repr(images.class_names).encode() + b"|files 2|")
        for key, label, index in zip(images.keys, images.labels, images.indices, strict=True):
            content = hashlib.sha256(Path(images.file(int(index))).read_bytes()).hexdigest()
            background = "(255, 255, 255)" if key == "clear.png" else ""
            digest.update(f"{key}|{label}|{content}|{background}|".encode())
        assert identity_of(images) == digest.hexdigest()[:16]  # as before there was a range


def test_a_range_is_part_of_the_identity_only_where_it_changes_pixels(tmp_path: Path) -> None:
    def identity(place: Path, value_range: object) -> str:
        images = load("imagefolder", tmp_path, root=str(place), value_range=value_range).train
        return identity_of(images)

    twelve, sixteen = scans(tmp_path / "twelve", 4095), scans(tmp_path / "sixteen", 65535)
    assert len({identity(twelve, given) for given in ("auto", "full", [0, 5000])}) == 3
    assert identity(twelve, "auto") == identity(twelve, [0, 4095])
    assert identity(sixteen, "auto") == identity(sixteen, "full") == identity(sixteen, [0, 65535])
    assert identity(sixteen, [0, 4095]) != identity(sixteen, "full")


def test_full_and_given_ranges_are_used_and_values_beyond_them_clipped(tmp_path: Path) -> None:
    root = scans(tmp_path / "scans", 4095)
    found = {
        str(given): levels(
            load("imagefolder", tmp_path, root=str(root), value_range=given, validation_fraction=0).train, "2.png"
        )
        for given in ("full", [1000, 3000], [2047, 2047.5])
    }
    assert found == {"full": [0, 8, 16], "[1000, 3000]": [0, 133, 255], "[2047, 2047.5]": [0, 0, 255]}


def test_floats_and_integers_beyond_sixteen_bits_have_their_own_range_unless_one_is_given(tmp_path: Path) -> None:
    top = tmp_path / "scans"
    for cls in "ab":
        for split in ("train", "test"):
            grey(top / split / cls / "twelve.tif", 0, 2048, 4095)
            grey(top / split / cls / "float.tif", 0, 0.5, 1, dtype=np.float32)
            grey(top / split / cls / "signed.tif", -1000, 0, 1000, dtype=np.int32)
    auto = load("imagefolder", tmp_path, root=str(top), validation_fraction=0)
    assert [levels(auto.train, f"{name}.tif") for name in ("twelve", "float", "signed")] == [[0, 128, 255]] * 3
    given = load("imagefolder", tmp_path, root=str(top), validation_fraction=0, value_range=[-1000, 1000])
    assert levels(given.train, "signed.tif") == [0, 128, 255]
    assert levels(given.train, "float.tif") == [128, 128, 128]
    assert identity_of(given.train) != identity_of(auto.train)


def test_a_format_that_says_what_is_white_keeps_it_and_sets_no_range(tmp_path: Path) -> None:
    """Pillow scales a .pgm file by its own largest value, which is 65535 in these."""
    for split in ("train", "test"):
        for cls in "ab":
            grey(tmp_path / f"scans/{split}/{cls}/own.pgm", 0, 65535 // 2, 65535)
            grey(tmp_path / f"scans/{split}/{cls}/twelve.png", 0, 2048, 4095)
    images = load("imagefolder", tmp_path, root=str(tmp_path / "scans"), validation_fraction=0).train
    assert levels(images, "own.pgm") == [0, 127, 255]
    assert levels(images, "twelve.png") == [0, 128, 255]


def test_a_negative_of_sixteen_bits_is_shown_as_a_positive_and_has_its_own_identity(tmp_path: Path) -> None:
    values = np.array([[0, 30000, 65535]], np.uint16)
    for name, meaning in (("negative", 0), ("positive", 1)):
        Image.fromarray(values).save(tmp_path / f"{name}.tif", tiffinfo={262: meaning, 274: 3})
    found = [np.asarray(read_image(tmp_path / f"{name}.tif"))[0, :, 0].tolist() for name in ("negative", "positive")]
    assert found == [[0, 138, 255], [255, 117, 0]]
    facts = [facts_of(tmp_path / f"{name}.tif") for name in ("negative", "positive")]
    assert [each.negative for each in facts] == [True, False]
    assert len({examining._content(Seen("content", each), ReadingOptions()) for each in facts}) == 2


def test_what_an_earlier_version_noted_of_images_of_eight_bits_is_kept() -> None:
    known = Examined(None, None, contents={"a": [False, False, False, None], "b": [False, False, True, 9]})
    known.contents = {"a": [False, False, False, None], "b": [False, False, True, 9]}
    assert known.content("a") == Seen("a", Facts())
    assert known.content("b") is None


def test_squares_tables_and_a_notebook_s_images_have_the_range_too(tmp_path: Path) -> None:
    root = scans(tmp_path / "scans", 4095)
    images = load("imagefolder", tmp_path, root=str(root), validation_fraction=0).train
    (*_, last) = images.squares(3, "squash")
    assert last.max() > 200
    assert load_images(str(root / "train")).image(5).getpixel((2, 0)) == (255, 255, 255)
    twelve = Image.fromarray(np.full((4, 4), 4095, np.uint16))
    assert training_images(table(tmp_path / "tables", [twelve] * 4), "parquet").image(0).getpixel((0, 0))[0] == 255


def test_an_image_that_cannot_be_read_does_not_keep_the_range_from_being_found(tmp_path: Path) -> None:
    root = scans(tmp_path / "scans", 4095)
    (root / "train/a/0.png").write_bytes((root / "train/a/0.png").read_bytes()[:40])
    images = load("imagefolder", tmp_path, root=str(root), validation_fraction=0).train
    lost, _ = examine(images)
    assert len(lost) == 1
    assert levels(images, "2.png")[2] == 255


def test_every_rank_has_the_range_that_the_leading_rank_found(tmp_path: Path, monkeypatch) -> None:
    class Follower:
        def once(self, make: object) -> tuple:
            return {}, "identity", (0, 1023)

    monkeypatch.setattr(readable, "world", Follower)
    images = load("imagefolder", tmp_path, root=str(scans(tmp_path / "scans", 4095)), validation_fraction=0).train
    left, _ = readable.checked(images)
    assert levels(left, "2.png") == [0, 255, 255]


@pytest.mark.parametrize("value", ["wide", 12, True, None, [1], [1, 2, 3], [2, 1], [1, 1], ["a", "b"], {"a": 1}])
def test_a_range_that_is_none_is_one_line_before_anything_loads(value: object) -> None:
    with pytest.raises(UserError, match=r"^dataset\.value_range=.* is not allowed: auto, full, or \[low, high\]"):
        ValueRange.of(value)
    for given in ("[5,1]", "wide"):
        with pytest.raises(UserError, match=r"^dataset\.value_range=.* is not allowed"):
            compose("train", ["dataset=imagefolder", f"dataset.root={os.sep}", f"dataset.value_range={given}"])


def test_describe_says_what_is_black_and_white(tmp_path: Path, capsys) -> None:
    root = scans(tmp_path / "scans", 4095)

    def described(place: Path, *overrides: str) -> dict:
        config = compose("describe", ["dataset=imagefolder", f"dataset.root={place}", "logger=none", *overrides])
        run = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        run.mkdir()
        describe(config, run)
        return json.loads((run / "description.json").read_text(encoding="utf-8"))

    assert described(root)["value_range"] == {"key": "auto", "black": 0, "white": 4095, "images": 8}
    assert "0 is black and 4,095 is white in 8 images with more than 8 bits" in " ".join(
        capsys.readouterr().out.split()
    )
    assert described(root, "dataset.value_range=[100,2000]")["value_range"]["key"] == [100, 2000]
    assert described(photo_folder(tmp_path))["value_range"] is None


def test_the_default_is_auto(tmp_path: Path) -> None:
    config = configured("imagefolder", tmp_path, root=str(scans(tmp_path / "scans", 700)))
    assert config.value_range == "auto"
    assert load_dataset(config).train.options.value_range.limits() == (0, 1023)
