"""Every folder and file below the root is used, or named as left aside with its count and the reason."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import compose
from layouts import archived, picture, png
from sources import configured, contents, error_of, load, sizes

from distdiff.commands.expand import expand
from distdiff.data.config import check
from distdiff.data.images import DatasetSplits
from distdiff.data.notes import Note, keeping
from distdiff.data.readable import readable
from distdiff.data.sources.imagefolder import read_class_folders
from distdiff.data.splits.usual_names import USUAL_NAMES, SplitNames
from distdiff.errors import UserError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n"


def tree(top: Path, *paths: str, count: int = 3) -> Path:
    """Three images in every path that ends in `/`, and a small file at every other path."""
    for path in paths:
        for number in range(count if path.endswith("/") else 0):
            picture(top / path / f"{number}.png", number)
        if not path.endswith("/"):
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_bytes(b"x")
    return top


def splits_of(*splits: str) -> list[str]:
    return [f"{split}/{name}/" for split in splits for name in ("cat", "dog")]


def noted(root: Path, option: str = "imagefolder", **keys: object) -> tuple[DatasetSplits, list[Note]]:
    with keeping() as notes:
        splits = load(option, root.parent, root=str(root), **keys)
    return splits, notes


def messages(root: Path, option: str = "imagefolder", **keys: object) -> str:
    return "\n".join(note.message for note in noted(root, option, **keys)[1])


@pytest.mark.parametrize("name", [*USUAL_NAMES["test"], "test_set", "Hold-out", "TESTSET", "eval images", "test_data"])
def test_usual_names_of_test_folders_are_understood(name: str, tmp_path) -> None:
    root = tree(tmp_path / "photos", *splits_of("training_set", name))
    splits, notes = noted(root)
    assert (sizes(splits), notes) == ((4, 2, 6), [])
    assert splits.train.class_names == ("cat", "dog")


@pytest.mark.parametrize("name", [*USUAL_NAMES["validation"], "Dev", "validation-set", "val_images"])
def test_usual_names_of_validation_folders_are_understood(name: str, tmp_path) -> None:
    splits, notes = noted(tree(tmp_path / "photos", *splits_of("train", name)))
    assert (sizes(splits), notes) == ((4, 6, 2), [])


def test_words_that_only_contain_a_split_are_no_split() -> None:
    names = SplitNames()
    assert not [
        word for word in ("trainer", "contest", "valley", "set", "data", "testament", "devil") if names.of(word)
    ]


@pytest.mark.parametrize(
    ("folders", "keys", "unused", "used"),
    [
        (("test", "testing"), {}, "testing", "test"),
        (("test", "holdout"), {"test_split": "holdout"}, "test", "holdout"),
        (("eval", "holdout"), {}, "holdout", "eval"),
    ],
)
def test_of_two_names_for_one_split_the_unused_one_is_said(folders, keys, unused, used, tmp_path) -> None:
    root = tree(tmp_path / "photos", *splits_of("train", used))
    tree(root, *splits_of(unused), count=2)
    splits, notes = noted(root, **keys)
    assert sizes(splits) == (4, 2, 6)
    assert [note.message for note in notes] == [
        f"{unused} in {root} is not used, 4 images: the test split is {used}; dataset.test_split={unused} takes "
        f"{unused} in its place"
    ]
    assert len(notes[0].files) == 4
    assert {*folders} == {unused, used}


@pytest.mark.parametrize("place", ["test/", "holdout/", "test/test/"])
def test_a_test_folder_without_class_folders_is_said_and_not_used(place: str, tmp_path) -> None:
    root = tree(tmp_path / "photos", *splits_of("train"), place)
    splits, notes = noted(root)
    assert (splits.train.class_names, sizes(splits)) == (("cat", "dog"), (2, 2, 2))
    assert [note.message for note in notes] == [
        f"{place.split('/')[0]} in {root} is not used, 3 images: no class folder or metadata file has its images, so test "
        f"images are taken from train"
    ]


def test_an_unknown_folder_with_the_same_classes_is_said_with_the_key_that_uses_it(tmp_path) -> None:
    root = tree(tmp_path / "photos", *splits_of("train", "later (1)"))
    splits, notes = noted(root)
    assert sizes(splits) == (2, 2, 2)
    assert [note.message for note in notes] == [
        f"later (1) in {root} is not used, 6 images: it looks like a split, with cat, dog; "
        "\"dataset.test_split='later (1)'\" makes it one"
    ]
    assert sizes(load("imagefolder", tmp_path, root=str(root), test_split="later (1)")) == (4, 2, 6)


@pytest.mark.parametrize("folders", [("seg_test", "seg_train"), ("trn", "tst"), ("part 1", "part 2")])
def test_unknown_folders_that_hold_the_same_classes_may_be_splits(folders: tuple[str, str], tmp_path) -> None:
    said = messages(tree(tmp_path / "photos", *splits_of(*folders)))
    assert f"{folders[0]}, {folders[1]} in {tmp_path}/photos are classes, but hold the same folders, cat, dog" in said
    if "seg_train" in folders:
        assert "dataset.train_split=seg_train dataset.test_split=seg_test" in said


@pytest.mark.parametrize("times", [2, 3])
def test_splits_in_folders_of_their_own_name_are_found(times: int, tmp_path) -> None:
    nested = ["/".join([split] * times) for split in ("training_set", "test_set")]
    root = tree(tmp_path / "photos", *splits_of(*nested), "test_set/notes.txt")
    splits, notes = noted(root)
    assert (splits.train.class_names, sizes(splits)) == (("cat", "dog"), (4, 2, 6))
    assert [note.message for note in notes] == [f"1 file left out of {root}/test_set, no image or hidden: notes.txt"]
    archive = archived(tmp_path / "p.zip", {f"p/{at}{n}.png": png() for at in splits_of(*nested) for n in range(3)})
    assert sizes(load("imagefolder", tmp_path, root=str(archive))) == (4, 2, 6)


def test_a_class_called_like_a_split_stays_a_class(tmp_path) -> None:
    splits, notes = noted(tree(tmp_path / "vehicles", "train/", "car/", "train/steam/"))
    assert (splits.train.class_names, notes) == (("car", "train"), [])
    said = messages(tree(tmp_path / "mixed", *splits_of("train"), "bus/"))
    assert "train in " in said
    assert "is a class, not the train split, because bus beside it holds images and no class folders" in said


def test_images_beside_the_classes_of_a_split_do_not_make_it_a_class(tmp_path) -> None:
    root = tree(tmp_path / "photos", *splits_of("train", "test"), "train/", "unlabelled/", "docs/a.txt")
    (root / "empty").mkdir()
    splits, notes = noted(root)
    assert (splits.train.class_names, sizes(splits)) == (("cat", "dog"), (4, 2, 6))
    assert [note.message for note in notes] == [
        f"3 folders of {root} in no split left out, 3 images and 1 other file: docs, empty, unlabelled",
        f"3 images in {root}/train itself, in no class folder, left out: 0.png, 1.png, 2.png",
    ]


def test_archives_and_other_files_beside_class_folders_are_named(tmp_path) -> None:
    root = tree(
        tmp_path / "photos", "cat/", "dog/", "bird.zip", "fish.RAR", "LICENSE", "cat/more.tar.gz", "cat/.cache/"
    )
    splits, notes = noted(root)
    assert sizes(splits) == (2, 2, 2)
    how = "(an archive in a folder is not unpacked, so unpack it yourself)"
    assert [note.message for note in notes] == [
        f"2 archives left out of {root} {how}: bird.zip, fish.RAR",
        f"1 file left out of {root}, no image or hidden: LICENSE",
        f"1 archive left out of {root} {how}: cat/more.tar.gz",
        f"1 file left out of {root}, no image or hidden: cat/.cache/",
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("photos.7z", "a file of a kind that is not read; allowed are a folder, or an archive (.zip, .tar, "),
        ("photo.jpg", "a file of a kind that is not read"),
        ("train.parquet", "a file of a table, which dataset=parquet reads"),
        ("gone.zip", "no such folder or archive"),
        ("pipe", "neither a folder nor a file"),
    ],
)
def test_a_root_of_another_kind_is_named_as_such(name: str, said: str, tmp_path) -> None:
    if name == "pipe":
        os.mkfifo(tmp_path / name)
    elif name != "gone.zip":
        (tmp_path / name).write_bytes(b"x")
    message = error_of("imagefolder", tmp_path, root=str(tmp_path / name))
    assert message.startswith(f"dataset.root={tmp_path / name}: {said}")


@pytest.mark.parametrize("folder", ["", "data/", "a/b/"])
@pytest.mark.parametrize("outer", ["photos.zip", "photos.tar"])
def test_archives_in_an_archive_are_named_and_no_path_in_the_cache(outer: str, folder: str, tmp_path) -> None:
    path = archived(tmp_path / outer, {f"{folder}{name}.zip": b"x" for name in ("cat", "dog")})
    message = error_of("imagefolder", tmp_path, root=str(path))
    assert message.startswith(f"dataset.root={path}: no class folders in it; it holds 2 archives (cat.zip, dog.zip)")
    assert str(tmp_path / "cache") not in message


def test_what_lies_beside_the_only_folder_of_an_archive_is_named(tmp_path) -> None:
    members = {f"photos/{name}/{number}.png": png() for name in ("cat", "dog") for number in range(3)}
    path = archived(tmp_path / "p.zip", members | {"more.zip": b"x", "README.md": b"x", "photos/bird.tar": b"x"})
    said = messages(path)
    for name in ("more.zip", "README.md", "bird.tar"):
        assert said.count(name) == 1
    assert str(tmp_path / "cache") not in said


LONG = {
    "image": f"dog/{'a' * 267}.png",
    "letters of several bytes": f"dog/{'é' * 140}.png",
    "folder": f"{'b' * 271}/1.png",
    "path": "/".join(["d" * 200] * 30) + "/1.png",
    "file and folder": "cat/1.png/2.png",
}


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("kind", LONG)
def test_a_member_that_the_file_system_cannot_hold_is_one_line_with_its_name(kind: str, suffix: str, tmp_path) -> None:
    path = archived(tmp_path / f"photos{suffix}", {"cat/1.png": png(), LONG[kind]: png()})
    message = error_of("imagefolder", tmp_path, root=str(path))
    assert message.startswith(f"dataset.root={path}: it holds a file whose name this file system cannot hold (File ")
    assert repr(LONG[kind]) in message


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes folders and files that may not be read. A test may run as root, whom no permission stops."""
    scandir, open_ = os.scandir, open

    def lock(*places: Path) -> None:
        names = {os.fspath(place) for place in places}

        def denied(call: Callable) -> Callable:
            def attempt(path: object = ".", *more: object, **keys: object) -> object:
                if not isinstance(path, int) and os.fspath(path) in names:
                    raise PermissionError(13, "Permission denied", os.fspath(path))
                return call(path, *more, **keys)

            return attempt

        monkeypatch.setattr(os, "scandir", denied(scandir))
        monkeypatch.setattr("builtins.open", denied(open_))
        monkeypatch.setattr("io.open", denied(open_))

    return lock


@pytest.mark.parametrize(
    ("folder", "said", "classes"),
    [
        ("private", "1 folder left out of {}, permission denied: private", ("cat", "dog")),
        ("test", "1 folder left out of {}, permission denied: test", ("cat", "dog")),
        ("train/dog", "1 folder left out of {}/train, permission denied: dog", ("cat",)),
        ("train/dog/old", "1 folder left out of {}/train, permission denied: dog/old", ("cat", "dog")),
    ],
)
def test_a_folder_without_permission_is_named_and_the_rest_goes_on(folder, said, classes, tmp_path, locked) -> None:
    root = tree(tmp_path / "photos", *splits_of("train", "test"), "private/old/", "train/dog/old/")
    locked(root / folder)
    splits, notes = noted(root)
    assert splits.train.class_names == classes
    assert said.format(root) in [note.message for note in notes]


@pytest.mark.parametrize("folder", ["train", "."])
def test_a_training_folder_or_root_without_permission_is_one_line(folder: str, tmp_path, locked) -> None:
    root = tree(tmp_path / "photos", *splits_of("train", "test"))
    locked(root / folder)
    message = error_of("imagefolder", tmp_path, root=str(root))
    assert message.startswith(f"dataset.root={root}: ")
    assert "may not be read (permission denied)" in message


def test_a_root_that_may_not_be_looked_up_is_one_line(tmp_path, monkeypatch) -> None:
    def denied(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    config = configured("imagefolder", tmp_path, root=str(tmp_path / "photos"))
    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(UserError, match=r"dataset.root=.*photos: it cannot be looked up \(permission denied\)"):
        check(config)


def test_an_archive_without_permission_is_one_line(tmp_path, locked) -> None:
    path = archived(tmp_path / "photos.tar", {"cat/1.png": png()})
    locked(path)
    assert error_of("imagefolder", tmp_path, root=str(path)) == f"dataset.root={path}: permission denied"


def test_files_that_hold_no_image_are_left_out_with_the_reason(tmp_path, capsys, locked) -> None:
    root = tree(tmp_path / "photos", "cat/", "dog/")
    for name, content in {
        "pointer.png": POINTER,
        "annex.jpg": b"/annex/objects/SHA256E-s7--0.jpg\n",
        "page.jpg": b"\n<!DOCTYPE html>\n<html>",
        "empty.png": b"",
    }.items():
        (root / "cat" / name).write_bytes(content)
    picture(root / "cat/secret.png")
    locked(root / "cat/secret.png")
    images, _ = readable(read_class_folders(str(root)), "train")
    assert {image.key: image.reason for image in images.unreadable} == {
        "annex.jpg": "it is a git-annex pointer, not the file itself (git annex get gets it)",
        "empty.png": "it is empty",
        "page.jpg": "it is a web page, not the file itself (the link of a page was saved, or a download went wrong)",
        "pointer.png": "it is a git-lfs pointer, not the file itself (git lfs pull gets it)",
        "secret.png": "Permission denied",
    }
    assert contents(images) == {name: ["0.png", "1.png", "2.png"] for name in ("cat", "dog")}
    assert "5 of 11 train images cannot be read and are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "name"),
    [("imagefolder", "p.zip"), ("imagefolder", "p.tar.gz"), ("parquet", "p.parquet"), ("imagefolder", "metadata.csv")],
)
def test_a_pointer_in_the_place_of_a_dataset_is_one_line_that_says_so(option: str, name: str, tmp_path) -> None:
    root = tree(tmp_path / "photos", "cat/", "dog/")
    (root / name).write_bytes(POINTER)
    message = error_of(option, tmp_path, root=str(root if name == "metadata.csv" else root / name))
    assert message.endswith(f"{root / name}: it is a git-lfs pointer, not the file itself (git lfs pull gets it)")


@pytest.mark.parametrize(
    ("option", "name"), [("imagefolder", "p.zip"), ("imagefolder", "p.tgz"), ("parquet", "p.parquet")]
)
def test_an_empty_file_in_the_place_of_a_dataset_is_one_line_that_says_so(option: str, name: str, tmp_path) -> None:
    (tmp_path / name).touch()
    assert error_of(option, tmp_path, root=str(tmp_path / name)).endswith(f"{name}: it is empty")


def test_a_command_says_once_what_is_left_aside(small_run: list[str], tmp_path, capsys) -> None:
    root = tree(tmp_path / "photos", *splits_of("train", "test"), "bird.zip", "holdout/", "private/", count=2)
    expand(compose("expand", [*small_run, "dataset=imagefolder", f"dataset.root='{root}'"]), tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    for part in ("bird.zip", "dataset photos: holdout in", "in no split left out"):
        assert said.count(part) == 1
