"""Folders whose labels and splits are in a metadata file."""

import datasets
import pytest
from layouts import METADATA, picture, write_metadata
from sources import contents, error_of, load, sizes


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_metadata_file_gives_labels_and_splits(kind: str, tmp_path) -> None:
    for row in METADATA:
        picture(tmp_path / row["file_name"])
    write_metadata(tmp_path, kind, METADATA)
    splits = load("imagefolder", tmp_path, root=str(tmp_path))
    assert contents(splits.train) == {"9": ["images/a.png"], "10": ["images/b.png"]}
    assert contents(splits.validation) == {"9": ["images/c.png"], "10": []}
    assert contents(splits.test) == {"9": [], "10": ["images/d.png"]}


def test_another_column_of_metadata_may_be_the_label(tmp_path) -> None:
    rows = [{"file_name": f"{number}.png", "label": "x", "kind": ("cat", "dog")[number % 2]} for number in range(6)]
    for row in rows:
        picture(tmp_path / row["file_name"])
    write_metadata(tmp_path, "csv", rows)
    splits = load("imagefolder", tmp_path, root=str(tmp_path), label_column="kind")
    assert splits.train.class_names == ("cat", "dog")
    assert sizes(splits) == (2, 2, 2)
    said = error_of("imagefolder", tmp_path, root=str(tmp_path), label_column="sort")
    assert "it needs the columns file_name and sort; it has file_name, label, kind" in said


METADATA_MISTAKES = {
    "elsewhere": ({"file_name": "../secret.png"}, "row 1: file_name '../secret.png' is not allowed"),
    "absolute": ({"file_name": "/etc/passwd"}, "row 1: file_name '/etc/passwd' is not allowed"),
    "missing": ({"file_name": "images/e.png"}, "1 file that it lists cannot be found: images/e.png"),
    "twice": ({"file_name": "images/a.png"}, "listed more than once: images/a.png"),
    "label": ({"label": None}, "row 1: None is no label"),
    "split": (
        {"split": "later"},
        "row 1: split 'later' is not allowed: one of train, training, validation, valid, val, dev, development, test, ",
    ),
}


@pytest.mark.parametrize("mistake", METADATA_MISTAKES)
def test_a_wrong_row_of_metadata_is_one_line(mistake: str, tmp_path) -> None:
    picture(tmp_path / "secret.png")
    for row in METADATA:
        picture(tmp_path / "photos" / row["file_name"])
    change, said = METADATA_MISTAKES[mistake]
    write_metadata(tmp_path / "photos", "jsonl", [METADATA[0] | change, *METADATA[1:]])
    assert said in error_of("imagefolder", tmp_path, root=str(tmp_path / "photos"))


def test_metadata_above_split_folders_follows_them(tmp_path) -> None:
    rows = [
        {"file_name": f"{split}/{label}.png", "label": label} for split in ("train", "test") for label in ("a", "b")
    ]
    for row in rows:
        picture(tmp_path / row["file_name"])
    write_metadata(tmp_path, "csv", rows)
    assert sizes(load("imagefolder", tmp_path, root=str(tmp_path), validation_fraction=0)) == (2, 0, 2)


def test_metadata_in_split_folders_and_without_labels(tmp_path) -> None:
    for split in ("train", "test"):
        rows = [{"file_name": f"{label}.png", "label": label} for label in ("cat", "dog")]
        for row in rows:
            picture(tmp_path / "labels" / split / row["file_name"])
            picture(tmp_path / "captions" / split / row["label"] / "1.png")
        write_metadata(tmp_path / "labels" / split, "csv", rows)
        captions = [{"file_name": f"{label}/1.png", "text": "a pet"} for label in ("cat", "dog")]
        write_metadata(tmp_path / "captions" / split, "jsonl", captions)
    for kind in ("labels", "captions"):
        splits = load("imagefolder", tmp_path, root=str(tmp_path / kind), validation_fraction=0)
        assert sizes(splits) == (2, 0, 2)
        assert splits.train.class_names == ("cat", "dog")


def test_an_expanded_dataset_reads_as_a_dataset(tmp_path) -> None:
    rows = [{"file_name": f"train~/{number}__0000.png", "label": 0} for number in range(4)]
    for row in rows:
        picture(tmp_path / row["file_name"])
    data = datasets.Dataset.from_list(rows).cast_column("label", datasets.ClassLabel(names=["train"]))
    data.to_parquet(tmp_path / "metadata.parquet")
    assert load("imagefolder", tmp_path, root=str(tmp_path)).train.class_names == ("train",)
