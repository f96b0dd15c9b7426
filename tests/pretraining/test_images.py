"""Pretraining uses all images that it is given but a small part for validation, at their own size, and says so."""

from pathlib import Path

import numpy as np
import pytest
from conftest import compose
from omegaconf import DictConfig
from PIL import Image

from distdiff.errors import UserError
from distdiff.pretraining.images import image_size, pretraining_images


def draw(folder: Path, count: int, size: tuple[int, int] = (20, 20)) -> Path:
    """Writes images that differ in every pixel into a folder."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng([number, *folder.name.encode()])
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def configured(root: Path, *more: str) -> DictConfig:
    where = ["dataset=imagefolder", f"dataset.root='{root}'", f"paths.output_dir={root}/../out"]
    return compose("pretrain", [*where, *more])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        draw(tmp_path / "photos" / name, 50)
    return tmp_path / "photos"


def used(config: DictConfig) -> tuple[int, int]:
    train, validation = pretraining_images(config)
    assert not {*zip(train.labels, train.keys, strict=True)} & {*zip(validation.labels, validation.keys, strict=True)}
    return len(train), len(validation)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([], (95, 5)),
        (["dataset.validation_fraction=0"], (95, 5)),
        (["dataset.num_folds=5", "dataset.fold=2"], (95, 5)),
        (["dataset.max_images=40"], (38, 2)),
        (["dataset.fraction=0.5"], (48, 2)),
        (["dataset.indices=[0,1,2,40]"], (3, 1)),
        (["pretrain.images=train"], (64, 16)),
        (["pretrain.images=train", "dataset.validation_fraction=0"], (76, 4)),
    ],
)
def test_all_images_but_a_small_part_are_trained_on(
    keys: list[str], expected: tuple[int, int], photos: Path, capsys
) -> None:
    assert used(configured(photos, *keys)) == expected
    said = capsys.readouterr().out
    assert f"pretrain on {expected[0]} images of dataset photos, and {expected[1]} for validation" in said
    assert ("a study of this dataset would test on some of them, unless pretrain.images=train" in said) == (
        "pretrain.images=train" not in keys
    )


def test_a_test_split_of_the_datasets_own_is_left_out_and_said(photos: Path, tmp_path: Path, capsys) -> None:
    own = tmp_path / "own"
    own.mkdir()
    photos.rename(own / "train")
    for name in ("cat", "dog"):
        draw(own / "test" / name, 3)
    assert used(configured(own)) == (95, 5)
    assert "and 5 for validation; 6 test images left out\n" in capsys.readouterr().out
    for name in ("cat", "dog"):
        draw(own / "validation" / name, 4)
    assert [len(images) for images in pretraining_images(configured(own))] == [100, 8]


def test_splits_of_a_metadata_file_are_the_datasets_own(tmp_path: Path, capsys) -> None:
    root = draw(tmp_path / "listed", 40)
    rows = [f"{number}.png,{'cd'[number % 2]},{'test' if number < 10 else 'train'}" for number in range(40)]
    (root / "metadata.csv").write_text("file_name,label,split\n" + "\n".join(rows))
    assert used(configured(root)) == (28, 2)
    assert "10 test images left out" in capsys.readouterr().out


def test_many_small_classes_leave_few_images_for_validation(tmp_path: Path) -> None:
    """One image of each class would be half of all images."""
    for number in range(20):
        draw(tmp_path / "photos" / f"class{number}", 2)
    assert used(configured(tmp_path / "photos")) == (38, 2)


def test_a_single_image_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "photos" / "cat", 1)
    with pytest.raises(UserError, match="dataset photos: pretraining takes two images or more"):
        pretraining_images(configured(tmp_path / "photos"))


@pytest.mark.parametrize(
    ("size", "keys", "expected"),
    [
        ((32, 32), [], 32),
        ((60, 45), [], 40),
        ((60, 45), ["dataset.fit=pad"], 56),
        ((9, 9), [], 16),
        ((300, 280), [], 224),
        ((300, 280), ["dataset.image_size=100"], 96),
        ((60, 60), ["pretrain.autoencoder_channels=[8,8,8,8,8]"], 48),
        ((32, 32), ["pretrain.image_size=64"], 64),
    ],
)
def test_the_default_size_is_that_of_the_images(
    size: tuple[int, int], keys: list[str], expected: int, tmp_path: Path, capsys
) -> None:
    draw(tmp_path / "photos" / "cat", 3, size)
    config = configured(tmp_path / "photos", *keys)
    train, _ = pretraining_images(config)
    assert image_size(config, train) == expected
    said = capsys.readouterr().out
    assert "enlarged" not in said
    assert (f"images of {expected}x{expected} pixels" in said) == (config.pretrain.image_size is None)


def test_a_typed_size_that_enlarges_images_is_said(tmp_path: Path, capsys) -> None:
    draw(tmp_path / "photos" / "cat", 3, (32, 32))
    config = configured(tmp_path / "photos", "pretrain.image_size=224")
    assert image_size(config, pretraining_images(config)[0]) == 224
    assert "enlarged 7 times, to pretrain.image_size=224; pretrain.image_size=32" in capsys.readouterr().out
