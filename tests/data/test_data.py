"""Datasets: fixed splits that share nothing, draws that depend on the seed alone, folders read as they are."""

import numpy as np
import pytest
from conftest import compose
from PIL import Image

from distdiff.classification.training import few_shot_training_set
from distdiff.data.datasets import load_dataset, prompts
from distdiff.data.reading.fit import fit_image
from distdiff.data.sources import digits, font_digits
from distdiff.data.splits.few_shot import draw_few_shot
from distdiff.errors import UserError

DIGITS = {"name": "digits", "split_seed": 0}


def test_digits_splits_share_no_image_and_no_pixels() -> None:
    splits = digits.load(**DIGITS)
    parts = [splits.train, splits.validation, splits.test]
    assert [len(part) for part in parts] == [797, 400, 600]
    keys = [set(part.keys) for part in parts]
    pixels = [{part.image(i).tobytes() for i in range(len(part))} for part in parts]
    for first, second in [(0, 1), (0, 2), (1, 2)]:
        assert not keys[first] & keys[second]
        assert not pixels[first] & pixels[second]
    for part in parts:  # stratified: every class has its tenth, give or take one
        counts = np.bincount(part.labels, minlength=10) / len(part)
        assert np.abs(counts - 0.1).max() < 0.01


def test_digits_are_light_on_dark_rgb() -> None:
    image = digits.load(**DIGITS).train.image(0)
    assert image.mode == "RGB"
    assert image.size == (32, 32)
    assert np.asarray(image)[:3].mean() < 128 < np.asarray(image).max()


def test_a_few_shot_draw_is_balanced_and_depends_on_the_seed_alone() -> None:
    pool = digits.load(**DIGITS).train
    first, again, other = (draw_few_shot(pool, 2, seed) for seed in (0, 0, 1))
    assert np.bincount(first.labels).tolist() == [2] * 10
    assert first.keys == again.keys
    assert first.keys != other.keys
    assert set(draw_few_shot(pool, 3, 0).keys) > set(first.keys)  # a larger draw contains the smaller one


def test_classes_with_fewer_images_than_are_to_be_drawn_are_said_once_in_a_study(capsys) -> None:
    pool = digits.load(**DIGITS).train  # 77 to 81 images a class
    counts = np.bincount(pool.labels)
    enough = compose("train", ["dataset.per_class=2"])
    few_shot_training_set(enough, pool, 0)
    assert "per_class" not in capsys.readouterr().out
    many = compose("train", [f"dataset.per_class={counts.max()}"])
    for seed in (0, 1):
        few_shot_training_set(many, pool, seed)
    said = " ".join(capsys.readouterr().out.split())
    fewer, least = int((counts < counts.max()).sum()), int(counts.argmin())
    assert said == (
        f"dataset digits: dataset.per_class={counts.max()}: {fewer} of 10 classes have fewer images, and all of them are used "
        f"(the fewest: {counts.min()} images of {least})"
    )


def test_font_digits_depend_on_their_index_alone_and_hold_no_scan() -> None:
    few, more = (font_digits.load(num_images=n, image_size=32, **DIGITS) for n in (200, 400))
    by_key = {key: more.train.image(i).tobytes() for i, key in enumerate(more.train.keys)}
    shared = [key for key in few.train.keys if key in by_key]
    assert shared
    for key in shared[:20]:
        assert few.train.image(few.train.keys.index(key)).tobytes() == by_key[key]
    scans = {image.tobytes() for image in map(digits.load(**DIGITS).train.image, range(797))}
    assert not scans & set(by_key.values())


def test_a_folder_of_class_folders(image_folder) -> None:
    config = compose("run", ["dataset=imagefolder", f"dataset.root={image_folder}"])
    splits = load_dataset(config.dataset)
    assert splits.train.class_names == ("cat", "train")
    found = {key for part in (splits.train, splits.validation, splits.test) for key in part.keys}
    assert {"x_val_2.png", "test.png", "sub/1.png"} <= found
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 10
    assert prompts(config.dataset, ("big_cat",)) == ["a photo of a big cat."]


def test_split_folders_are_splits(tmp_path) -> None:
    for split, count in [("train", 10), ("test", 3)]:
        for name in ("a", "b"):
            for i in range(count):
                path = tmp_path / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (i, len(name), count)).save(path)
    config = compose("run", ["dataset=imagefolder", f"dataset.root={tmp_path}"])
    splits = load_dataset(config.dataset)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 4, 6)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: (p / "cat").mkdir(parents=True)])
def test_a_folder_without_images_is_one_line(make, tmp_path) -> None:
    make(tmp_path / "data")
    with pytest.raises(UserError, match=r"^dataset\.root="):
        load_dataset(compose("run", ["dataset=imagefolder", f"dataset.root={tmp_path / 'data'}"]).dataset)


@pytest.mark.parametrize(
    ("fit", "expected"), [("crop", (255, 255, 255)), ("squash", (255, 255, 255)), ("pad", (0, 0, 0))]
)
def test_fit_makes_squares(fit: str, expected: tuple[int, int, int]) -> None:
    square = fit_image(Image.new("RGB", (64, 32), "white"), 16, fit)
    assert square.size == (16, 16)
    assert square.getpixel((8, 0)) == expected
