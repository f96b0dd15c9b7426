"""Folders whose labels and splits are in a metadata file."""

from pathlib import Path

import datasets
import pytest
from layouts import METADATA, labelled, picture, write_metadata
from sources import contents, error_of, load, sizes

from distdiff.data.examining import identity_of
from distdiff.data.notes import keeping


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


def photos(tmp_path: Path, content: str | bytes, kind: str = "csv") -> Path:
    """Four images and a metadata file."""
    root = tmp_path / "photos"
    for name in "abcd":
        picture(root / f"{name}.png")
    (root / f"metadata.{kind}").write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


BAD_ROWS = {
    "comma in a label": (
        "file_name,label\na.png,Ram C/V, Cargo Van\nb.png,car\n",
        "row 1 (line 2): it has 3 fields, but there are 2 columns (file_name, label); a text with ',' in it needs "
        "quotation marks around it",
    ),
    "comma under a column without a name": (
        "file_name,label,\nb.png,car,\na.png,Ram, Van\n",
        "row 2 (line 3): it has 3",
    ),
    "comma with a split": ("file_name,label,split\na.png,Ram, Van,train\n", "row 1 (line 2): it has 4 fields"),
    "too few": (
        "file_name,label,split\na.png,cat,train\n\nb.png,dog\n",
        "row 2 (line 4): it has 2 fields, but there are 3",
    ),
    "one field": ("file_name,label\na.png,cat\nb.png dog\n", "row 2 (line 3): it has 1 field"),
    "semicolons": ("file_name;label\na.png;Ram; Van\n", "a text with ';' in it needs quotation marks"),
    "an open quotation mark": (
        'file_name,label\na.png,"cat\nb.png,dog\n',
        "line 2: a quotation mark in it is never closed",
    ),
    "two columns of a name": ("file_name,label,label\na.png,cat,dog\n", "it has several columns 'label'"),
}


@pytest.mark.parametrize("mistake", BAD_ROWS)
def test_a_row_of_too_many_or_too_few_fields_is_refused_by_its_number(mistake: str, tmp_path) -> None:
    content, said = BAD_ROWS[mistake]
    message = error_of("imagefolder", tmp_path, root=str(photos(tmp_path, content)))
    assert message.startswith(f"{tmp_path}/photos/metadata.csv")
    assert said in message


PETS = "file_name,label\na.png,cat\nb.png,dog\nc.png,cat\nd.png,dog\n"
TIDIED = {
    "byte-order mark": (f"\ufeff{PETS}", "without its byte-order mark"),
    "blank lines": (PETS.replace("\n", "\n\n"), "without 5 blank rows"),
    "blank rows of a spreadsheet": (PETS + ",\r\n , \r\n", "without 2 blank rows"),
    "trailing commas": (PETS.replace("\n", ",,\n"), "without empty fields at the end of 5 rows"),
    "a trailing comma in one row": (
        PETS.replace("b.png,dog", "b.png,dog,"),
        "without empty fields at the end of 1 row",
    ),
    "spaces": (PETS.replace(",", " ,  "), "without spaces around 10 fields"),
    "tab after a label": (PETS.replace("b.png,dog", "b.png,dog\t"), "without spaces around 1 field"),
    "space before a quotation mark": (PETS.replace(",dog", ', "dog"'), "without spaces before 2 quoted fields"),
    "semicolons": (PETS.replace(",", ";"), "with semicolons between the fields"),
    "unicode text": (
        PETS.replace(",", "\t").encode("utf-16"),
        "without its byte-order mark, with tabs between the fields",
    ),
}


@pytest.mark.parametrize("kind", TIDIED)
def test_what_a_spreadsheet_or_a_hand_adds_is_taken_as_meant_and_said(kind: str, tmp_path) -> None:
    content, said = TIDIED[kind]
    plain = load("imagefolder", tmp_path, root=str(photos(tmp_path / "plain", PETS)), validation_fraction=0)
    with keeping() as notes:
        splits = load("imagefolder", tmp_path, root=str(photos(tmp_path, content)), validation_fraction=0)
    for part in ("train", "test"):
        assert contents(getattr(splits, part)) == contents(getattr(plain, part))
        assert identity_of(getattr(splits, part)) == identity_of(getattr(plain, part))
    (note,) = notes
    found = note.message.removeprefix(f"{tmp_path}/photos/metadata.csv is read ")
    assert said in found
    assert note.about == "metadata"


@pytest.mark.parametrize(
    "rows", [PETS, PETS.rstrip(), PETS.replace("\n", "\r\n"), PETS.replace("cat", '"cat, ""tabby"""')]
)
def test_a_metadata_file_without_oddities_is_read_without_a_remark(rows: str, tmp_path) -> None:
    with keeping() as notes:
        splits = load("imagefolder", tmp_path, root=str(photos(tmp_path, rows)))
    assert not notes
    assert splits.train.class_names[0] in ("cat", 'cat, "tabby"')


JSON_MISTAKES = {
    "no object": ('{"file_name": "a.png", "label": "x"}\n5\n', "row 2: it is no JSON object"),
    "list": ('["a.png", "x"]\n', "row 1: it is no JSON object"),
    "cut short": (
        '{"file_name": "a.png", "label": "x"}\n\n{"file_name": "b',
        "row 2: it is no JSON (Unterminated string",
    ),
    "label missing in a row": (
        '{"file_name": "a.png", "label": "x"}\n{"file_name": "b.png"}\n',
        "row 2: it needs the columns file_name and label; it has file_name",
    ),
    "label missing in the first row": (
        '\ufeff{"file_name": "a.png"}\n{"file_name": "b.png", "label": "x"}\n',
        "row 1: it needs the columns file_name and label; it has file_name",
    ),
}


@pytest.mark.parametrize("mistake", JSON_MISTAKES)
def test_a_wrong_line_of_json_is_refused_by_its_number(mistake: str, tmp_path) -> None:
    content, said = JSON_MISTAKES[mistake]
    assert f"metadata.jsonl, {said}" in error_of("imagefolder", tmp_path, root=str(photos(tmp_path, content, "jsonl")))


def test_a_metadata_file_in_another_encoding_is_one_line(tmp_path) -> None:
    message = error_of(
        "imagefolder", tmp_path, root=str(photos(tmp_path, PETS.replace("dog", "Hündin").encode("cp1252")))
    )
    assert message.startswith(f"{tmp_path}/photos/metadata.csv: cannot read it ('utf-8' codec")
    assert message.endswith("save it as UTF-8")


def test_files_that_a_metadata_file_does_not_list_are_counted_and_named(tmp_path) -> None:
    root = photos(tmp_path, "file_name,label\na.png,cat\nb.png,dog\n")
    (root / "more.zip").write_bytes(b"x")
    (root / "sub").mkdir()
    (root / "sub/read.me").write_bytes(b"x")
    with keeping() as notes:
        load("imagefolder", tmp_path, root=str(root))
    table = f"{root}/metadata.csv"
    assert [note.message for note in notes] == [
        f"2 images left out, not listed in {table}: c.png, d.png",
        f"1 archive left out, not listed in {table} (an archive in a folder is not unpacked, so unpack it yourself): more.zip",
        f"1 file left out, not listed in {table}, no image or hidden: sub/read.me",
    ]


def test_a_metadata_file_without_labels_and_a_split_without_a_table_are_said(tmp_path) -> None:
    for split, names in (("train", "ab"), ("test", "cd")):
        for name in names:
            picture(tmp_path / "set" / split / f"{name}.png")
            picture(tmp_path / "pets" / name / "1.png")
    (tmp_path / "set/train/metadata.csv").write_text("file_name,label\na.png,x\nb.png,y\n")
    (tmp_path / "pets/metadata.csv").write_text("file_name,text\na/1.png,one, two\nb/1.png\n")
    with keeping() as notes:
        load("imagefolder", tmp_path, root=str(tmp_path / "set"))
        load("imagefolder", tmp_path, root=str(tmp_path / "pets"))
    assert [note.message for note in notes] == [
        f"test in {tmp_path}/set is not used, 2 images: no class folder or metadata file has its images, so test images "
        f"are taken from train",
        f"{tmp_path}/pets/metadata.csv has no column label, so the folders tell the classes",
    ]


@pytest.mark.parametrize(("numbers", "expected"), [([1, 2, 1, 2], ("cat", "dog")), ([2, 1, 2, 2], ("cat", "dog"))])
def test_labels_of_a_parquet_file_may_count_from_one(numbers: list[int], expected: tuple[str, ...], tmp_path) -> None:
    root = numbered(photos(tmp_path, PETS), numbers)
    with keeping() as notes:
        splits = load("imagefolder", tmp_path, root=str(root), validation_fraction=0, test_fraction=0.01)
    assert splits.train.class_names == expected
    everything = {name: keys + contents(splits.test)[name] for name, keys in contents(splits.train).items()}
    assert {key for name in ("dog",) for key in everything[name]} == {
        f"{name}.png" for name, number in zip("abcd", numbers, strict=True) if number == 2
    }
    assert "the labels in column label count from 1 and are read so: 1 is cat, 2 is dog" in notes[0].message


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([0, 1, 2, 1], "its column label has 1 row with labels that are not among its 2 class names"),
        ([1, 3, 1, 7], "2 rows with labels that are not among its 2 class names, which are numbered from 0: 3, 7"),
        ([0, 1, -1, 1], "row 3: None is no label"),
    ],
)
def test_labels_of_a_parquet_file_outside_its_names_are_one_line(numbers: list[int], said: str, tmp_path) -> None:
    assert said in error_of("imagefolder", tmp_path, root=str(numbered(photos(tmp_path, PETS), numbers)))


def numbered(root: Path, numbers: list[int]) -> Path:
    """Replaces the metadata file by one that `datasets` might have written, with any numbers as labels."""
    (root / "metadata.csv").unlink()
    features = datasets.Features(
        {"file_name": datasets.Value("string"), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    labelled({"file_name": [f"{name}.png" for name in "abcd"], "label": numbers}, features, root / "metadata.parquet")
    return root
