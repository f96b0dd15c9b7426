"""Whatever becomes of a dataset's files, one line says which file is broken, and why."""

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from damages import Reader, cases, check_said, whole
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from sources import load

from distdiff.data.prompts import class_sentences, class_words
from distdiff.data.readable import readable

CLASSES = ("cat", "dog")
ROWS = [(f"{name}/{number}.png", name) for name in CLASSES for number in range(3)]


def class_folders(folder: Path) -> None:
    for number, (file, _) in enumerate(ROWS):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def listed(folder: Path) -> None:
    class_folders(folder / "listed")
    table = folder / "listed"
    (table / "metadata.csv").write_text("file_name,label\n" + "".join(f"{file},{label}\n" for file, label in ROWS))


def listed_json(folder: Path) -> None:
    class_folders(folder)
    lines = (json.dumps({"file_name": file, "label": label}) for file, label in ROWS)
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def listed_parquet(folder: Path) -> None:
    class_folders(folder)
    rows = [{"file_name": file, "label": label} for file, label in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "metadata.parquet")


def zipped(folder: Path) -> None:
    class_folders(folder / "images")
    with zipfile.ZipFile(folder / "pets.zip", "w") as archive:
        for file, _ in ROWS:
            archive.write(folder / "images" / file, file)


def tarred(mode: str, name: str):
    def make(folder: Path) -> None:
        class_folders(folder / "images")
        with tarfile.open(folder / name, mode) as archive:
            for file, _ in ROWS:
                archive.add(folder / "images" / file, file)

    return make


def table(folder: Path) -> None:
    class_folders(folder / "images")
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(CLASSES))})
    images = [{"bytes": (folder / "images" / file).read_bytes(), "path": None} for file, _ in ROWS]
    rows = {"image": images, "label": [CLASSES.index(label) for _, label in ROWS]}
    (folder / "tables").mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(str(folder / "tables" / "train.parquet"))


def saved(folder: Path) -> None:
    class_folders(folder / "images")
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(CLASSES))})
    images = [{"bytes": (folder / "images" / file).read_bytes(), "path": None} for file, _ in ROWS]
    rows = {"image": images, "label": [CLASSES.index(label) for _, label in ROWS]}
    Dataset.from_dict(rows, features=features).save_to_disk(str(folder / "saved"))


def words(name: str, text: str):
    def make(folder: Path) -> None:
        (folder / name).write_text(text)

    return make


def reads(option: str, root: str = "."):
    def read(folder: Path) -> None:
        splits = load(option, folder.parent, root=str(folder / root), validation_fraction=0)
        readable(splits.train, "training")
        readable(splits.test, "test")

    return read


def words_of(name: str):
    return lambda folder: class_words(CLASSES, str(folder / name))


def sentences_of(name: str):
    return lambda folder: class_sentences(str(folder / name), CLASSES, CLASSES)


TABLE = json.dumps({"cat": "a cat", "dog": "a dog"}, indent=1)
UNSEEN = ("NUL", "Latin-1")  # what lies in an archive or a table without checksums
FOLDERS = ("picture", "folder", "missing")  # another picture is a picture, and an empty folder holds none
LINES = ("cut short",)  # a table of lines has no end
READERS = {
    "image": Reader(class_folders, "cat/1.png", reads("imagefolder"), FOLDERS, "cat/1.png"),
    "metadata.csv": Reader(listed, "listed/metadata.csv", reads("imagefolder", "listed"), ("folder", "missing")),
    "metadata.jsonl": Reader(listed_json, "metadata.jsonl", reads("imagefolder"), ("folder", "missing")),
    "metadata.parquet": Reader(listed_parquet, "metadata.parquet", reads("imagefolder"), ("folder", "missing")),
    "zip": Reader(zipped, "pets.zip", reads("imagefolder", "pets.zip"), ("folder",)),
    "tar": Reader(tarred("w", "pets.tar"), "pets.tar", reads("imagefolder", "pets.tar"), ("folder", *UNSEEN)),
    "tar.gz": Reader(tarred("w:gz", "pets.tar.gz"), "pets.tar.gz", reads("imagefolder", "pets.tar.gz"), ("folder",)),
    "tar.xz": Reader(tarred("w:xz", "pets.tar.xz"), "pets.tar.xz", reads("imagefolder", "pets.tar.xz"), ("folder",)),
    "tar.bz2": Reader(
        tarred("w:bz2", "pets.tar.bz2"), "pets.tar.bz2", reads("imagefolder", "pets.tar.bz2"), ("folder",)
    ),
    "parquet": Reader(table, "tables/train.parquet", reads("parquet", "tables"), ("missing", *UNSEEN)),
    "parquet file": Reader(
        table, "tables/train.parquet", reads("parquet", "tables/train.parquet"), ("folder", *UNSEEN)
    ),
    "arrow": Reader(saved, "saved/data-00000-of-00001.arrow", reads("parquet", "saved"), UNSEEN),
    "state.json": Reader(saved, "saved/state.json", reads("parquet", "saved"), ("missing",)),
    "dataset_info.json": Reader(saved, "saved/dataset_info.json", reads("parquet", "saved"), ("other table",)),
    "class_names.json": Reader(words("names.json", TABLE), "names.json", words_of("names.json")),
    "class_names.csv": Reader(words("names.csv", "cat,a cat\ndog,a dog\n"), "names.csv", words_of("names.csv"), LINES),
    "class_names.txt": Reader(words("names.txt", "cat a cat\ndog a dog\n"), "names.txt", words_of("names.txt"), LINES),
    "prompts.json": Reader(words("prompts.json", TABLE), "prompts.json", sentences_of("prompts.json")),
    "prompts.csv": Reader(words("prompts.csv", "cat,a cat\ndog,a dog\n"), "prompts.csv", sentences_of("prompts.csv")),
}


@pytest.mark.parametrize("name", READERS)
def test_a_whole_file_is_read(name: str, tmp_path: Path) -> None:
    whole(READERS[name], tmp_path / "given")
    READERS[name].read(tmp_path / "given")


@pytest.mark.parametrize(("name", "damage"), cases(READERS))
def test_a_broken_file_of_a_dataset_is_one_line_with_its_path_and_the_cause(
    name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print(check_said(READERS[name], damage, tmp_path, capsys))
