"""Folders of images as people have them, and what becomes of them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import compose
from counting import calls_of, steps_of
from layouts import picture
from sources import configured, contents, error_of, load, sizes

from distdiff.commands.expand import expand
from distdiff.commands.train import train
from distdiff.data.datasets import load_dataset
from distdiff.data.examining import identity_of
from distdiff.data.notes import keeping
from distdiff.errors import UserError
from distdiff.store.names import safe_name


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "validation", "test"), ("Training", "valid", "Testing"), ("TRAIN", "Val", "Test")],
)
def test_split_folders_by_their_usual_names(train: str, validation: str, test: str, tmp_path) -> None:
    for split, count in ((train, 5), (validation, 2), (test, 3)):
        for name in ("cat", "dog"):
            for number in range(count):
                picture(tmp_path / split / name / f"{number}.png")
    assert sizes(load("imagefolder", tmp_path, root=str(tmp_path))) == (10, 4, 6)


def test_oddities_of_a_folder_do_no_harm(tmp_path, capsys) -> None:
    root = tmp_path / "photos"
    names = (
        "a.PNG",
        "a.png",
        "b.JpEg",
        "test_1.jpg",
        "x_val_2.png",
        "sub/1.png",
        "ünï 🐈 [1] {} %.png",
        "back\\slash.png",
        "-rf.png",
    )
    for name in names:
        picture(root / "cat" / name)
        picture(root / "train" / name)
        picture(root / "..escape" / name)
        picture(root / "c:\\..\\up" / name)
    broken = os.fsencode(root / "cat") + b"/bad\xff.png"
    Path(os.fsdecode(broken)).write_bytes((root / "cat/a.png").read_bytes())
    (root / "cat/.hidden.png").write_bytes(b"")
    (root / "cat/notes.txt").write_text("no image")
    (root / "cat/Thumbs.db").write_bytes(b"")
    (root / "cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "cat/linked.png").symlink_to(root / "cat/a.png")
    (root / "cat/loop").symlink_to(root, target_is_directory=True)
    (root / "cat/itself.png").symlink_to(root / "cat/itself.png")
    (root / "itself").symlink_to(root / "itself")
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "empty").mkdir()
    splits = load("imagefolder", tmp_path, root=str(root), validation_fraction=0)
    said = " ".join(capsys.readouterr().out.split())
    assert splits.train.class_names == ("c:\\..\\up", "cat", "train")
    assert f"2 files left out of {root}, a link to a file that is not there: cat/gone.png, cat/itself.png" in said
    assert f"3 files left out of {root}, no image or hidden: cat/.hidden.png" in said
    assert "1 folder with a leading dot left out of" in said
    assert "1 class left out, without a training image: empty" in said
    found = contents(splits.train)
    for name, keys in contents(splits.test).items():
        found[name] += keys
    assert sorted(found["train"]) == sorted(names)
    assert sorted(found["cat"]) == sorted([*names, "linked.png", "bad\\xff.png"])
    assert identity_of(splits.train)
    for images in (splits.train, splits.test):
        for name in images.class_names:
            assert Path(safe_name(name)).name == safe_name(name)
        stems = [safe_name(key) for key in images.keys]
        assert all("/" not in stem and not stem.startswith(".") for stem in stems)
    assert len({safe_name(key) for key in found["cat"]}) == len(found["cat"])


def test_a_test_folder_without_classes_is_no_class(tmp_path) -> None:
    for name in ("cat", "dog"):
        for number in range(5):
            picture(tmp_path / "train" / name / f"{number}.png")
    picture(tmp_path / "test/1.png")
    splits = load("imagefolder", tmp_path, root=str(tmp_path))
    assert splits.train.class_names == ("cat", "dog")
    assert sizes(splits) == (6, 2, 2)


def test_split_folders_may_be_named_and_must_be_there(tmp_path) -> None:
    for split in ("trn", "val", "tst"):
        for name in ("cat", "dog"):
            picture(tmp_path / split / name / "1.png")
    keys = {"root": str(tmp_path), "train_split": "trn"}
    assert sizes(load("imagefolder", tmp_path, **keys, test_split="tst")) == (2, 2, 2)
    assert sizes(load("imagefolder", tmp_path, **keys, test_split="val")) == (2, 0, 2)
    assert "dataset.test_split=holdout: there is no such folder" in error_of(
        "imagefolder", tmp_path, **keys, test_split="holdout"
    )


def test_a_folder_too_many_is_said(tmp_path, capsys) -> None:
    for name in ("cat", "dog"):
        picture(tmp_path / "photos" / name / "1.png")
    load("imagefolder", tmp_path, root=str(tmp_path))
    assert f"if cat, dog are classes, use dataset.root={tmp_path}/photos" in capsys.readouterr().out.replace("\n", "")


def test_images_in_no_class_folder_are_counted_and_named(tmp_path, capsys) -> None:
    picture(tmp_path / "cat/1.png")
    for name in "dbcae":
        picture(tmp_path / f"{name}.png")
    with keeping() as notes:
        load("imagefolder", tmp_path, root=str(tmp_path))
    assert capsys.readouterr().out == ""  # who keeps them prints them
    (note,) = notes
    assert note.message == (
        f"5 images in {tmp_path} itself, in no class folder, left out: a.png, b.png, c.png and 2 more"
    )
    assert note.files == ("a.png", "b.png", "c.png", "d.png", "e.png")
    (tmp_path / "cat/1.png").unlink()
    with pytest.raises(UserError, match="no images in its class folders"), keeping():
        load("imagefolder", tmp_path, root=str(tmp_path))  # an error leaves them to be printed here
    assert "5 images in" in capsys.readouterr().out


def test_one_class_only_is_a_dataset(tmp_path) -> None:
    for number in range(4):
        picture(tmp_path / "cat" / f"{number}.png")
    assert sizes(load("imagefolder", tmp_path, root=str(tmp_path))) == (2, 1, 1)


def test_files_are_listed_without_looking_into_any_of_them(tmp_path) -> None:
    """Each folder is read once and no file is opened or asked about, so thousands take no time: 1.3 s for 100,000."""

    def listing(files_a_class: int) -> Callable[[], object]:
        top = tmp_path / str(files_a_class)
        for name in "abcde":
            (top / name).mkdir(parents=True)
            for number in range(files_a_class):
                (top / name / f"{number}.jpg").touch()
        config = configured("imagefolder", tmp_path, root=str(top))
        assert sum(sizes(load_dataset(config))) == 5 * files_a_class
        return lambda: load_dataset(config)

    few, more = listing(100), listing(200)
    calls = [calls_of(few), calls_of(more)]
    for opening in ("open", "stat", "lstat", "scandir", "listdir"):
        assert calls[0][opening] == calls[1][opening] < 100
    assert steps_of(more) < 2.1 * steps_of(few)


def test_one_image_a_class_can_be_expanded_but_not_measured(small_run: list[str], tmp_path) -> None:
    for name in ("cat", "dog"):
        picture(tmp_path / "photos" / name / "1.png", 40)
    given = ["dataset=imagefolder", f"dataset.root={tmp_path}/photos"]
    made = expand(compose("expand", [*small_run, *given]), tmp_path)
    assert len(list(made.rglob("*.png"))) == 4
    with pytest.raises(UserError, match="no test image of 2 of 2 classes"):
        train(compose("train", [*given, "logger=none", f"paths.output_dir={tmp_path}"]), tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have only file names in Unicode")
def test_a_class_folder_whose_name_is_not_utf8_is_said(tmp_path, capsys) -> None:
    for name in (b"caf\xe9", "thé".encode()):
        for number in range(4):
            picture(tmp_path / "photos" / os.fsdecode(name) / f"{number}.png", number)
    assert load("imagefolder", tmp_path, root=str(tmp_path / "photos")).train.class_names == ("caf\\xe9", "thé")
    said = " ".join(capsys.readouterr().out.split())
    assert "1 class folder of" in said
    assert "not UTF-8, so that prompts have escapes: caf\\xe9; dataset.class_names gives words" in said
