"""Tables that `datasets` reads: the hub, parquet and arrow files, saved datasets."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from layouts import classed, labelled, picture, png, table
from sources import contents, error_of, load, red, sizes

from distdiff.data.notes import keeping
from distdiff.data.sources import cifar
from distdiff.errors import UserError


def test_parquet_files_are_splits_by_name_and_columns_are_found_by_kind(tmp_path) -> None:
    root = tmp_path / "odd [name]"
    root.mkdir()
    classed(table(6, [0, 1] * 3, id=list(range(6))), ["cat", "../dog"]).to_parquet(
        root / "train-00000-of-00001.parquet"
    )
    classed(table(4, [1, 1, 0, -1], id=list(range(4))), ["cat", "../dog"]).to_parquet(
        root / "test-00000-of-00001.parquet"
    )
    splits = load("parquet", tmp_path, root=str(root), validation_fraction=0)
    assert contents(splits.train) == {"cat": ["000000", "000002", "000004"], "../dog": ["000001", "000003", "000005"]}
    assert splits.test.labels.tolist() == [1, 1, 0]  # the one without a label is left out
    assert red(splits.test) == [0, 10, 20]


@pytest.mark.parametrize(("labels", "names"), [(["b", "a", "b", "a"], ("a", "b")), ([10, 9, 10, 9], ("9", "10"))])
def test_labels_may_be_text_or_numbers(labels: list, names: tuple[str, ...], tmp_path) -> None:
    table(4, labels).to_parquet(tmp_path / "all.parquet")
    splits = load("parquet", tmp_path, root=str(tmp_path / "all.parquet"), label_column="kind")
    assert splits.train.class_names == names
    assert sizes(splits) == (2, 0, 2)


def test_a_saved_dataset_and_arrow_files_are_read(tmp_path) -> None:
    data = classed(table(8, [0, 1] * 4), ["a", "b"])
    datasets.DatasetDict(train=data, valid=data).save_to_disk(tmp_path / "saved")
    assert sizes(load("parquet", tmp_path, root=str(tmp_path / "saved"))) == (6, 8, 2)
    assert sizes(load("parquet", tmp_path, root=str(tmp_path / "saved/train"))) == (4, 2, 2)  # without its DatasetDict
    arrow = next((tmp_path / "saved/train").glob("*.arrow"))
    assert sizes(load("parquet", tmp_path, root=str(arrow))) == (4, 2, 2)


def test_parquet_files_are_splits_by_their_folders_too(tmp_path) -> None:
    data = classed(table(4, [0, 1] * 2), ["a", "b"])
    for folder in ("train", "val", "test"):
        (tmp_path / folder).mkdir()
        data.to_parquet(tmp_path / folder / "0000.parquet")
    data.to_parquet(tmp_path / "train/0001.parquet")
    assert sizes(load("parquet", tmp_path, root=str(tmp_path))) == (8, 4, 4)


def test_splits_join_and_none_is_used_twice(tmp_path) -> None:
    data = classed(table(4, [0, 1, 0, 1]), ["a", "b"])
    for split in ("train", "validation", "test"):
        data.to_parquet(tmp_path / f"{split}.parquet")
    assert sizes(load("parquet", tmp_path, root=str(tmp_path))) == (4, 4, 4)
    joined = load("parquet", tmp_path, root=str(tmp_path), train_split="train+validation", validation_fraction=0)
    assert sizes(joined) == (8, 0, 4)
    assert len(set(joined.train.keys)) == 8
    on_validation = load("parquet", tmp_path, root=str(tmp_path), test_split="validation", validation_fraction=0)
    assert sizes(on_validation) == (4, 0, 4)


def numbered(root: Path, **labels: list[int]) -> Path:
    """A parquet file for each split, with any numbers as labels."""
    root.mkdir()
    features = datasets.Features({"image": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])})
    for split, numbers in labels.items():
        images = [{"bytes": png(), "path": None} for _ in numbers]
        labelled({"image": images, "kind": numbers}, features, root / f"{split}.parquet")
    return root


@pytest.mark.parametrize(
    ("train", "test"), [([1, 2, 1, 2], [2, 2]), ([2, 1, -1, 1], [1, 2]), ([1, 1, 2], [1, 1])], ids=str
)
def test_class_labels_that_count_from_one_in_all_splits_are_read_so_and_it_is_said(train, test, tmp_path) -> None:
    root = numbered(tmp_path / "set", train=train, test=test)
    with keeping() as notes:
        splits = load("parquet", tmp_path, root=str(root), validation_fraction=0)
    assert splits.train.class_names == ("cat", "dog")
    assert splits.train.labels.tolist() == [label - 1 for label in train if label > 0]
    assert splits.test.labels.tolist() == [label - 1 for label in test]
    (note,) = [note for note in notes if note.about == "labels"]
    assert note.message.endswith("the labels in column kind count from 1 and are read so: 1 is cat, 2 is dog")


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ([0, 1, 2, 1], [0], "1 row with labels that are not among its 2 class names, which are numbered from 0: 2"),
        ([0, 1], [1, 2], "1 row with labels that are not among its 2 class names, which are numbered from 0: 2"),
        ([1, 3, 1, 7], [1], "2 rows with labels that are not among its 2 class names, which are numbered from 0: 3, 7"),
    ],
)
def test_class_labels_outside_their_names_are_one_line(train, test, said: str, tmp_path) -> None:
    root = numbered(tmp_path / "set", train=train, test=test)
    assert f"dataset.root={root}: its column kind has {said}" in error_of("parquet", tmp_path, root=str(root))


def test_class_labels_within_their_names_are_read_without_a_remark(tmp_path) -> None:
    with keeping() as notes:
        splits = load("parquet", tmp_path, root=str(numbered(tmp_path / "set", train=[1, 1, 0], test=[1, 0])))
    assert splits.train.labels.tolist() == [1, 0]
    assert not notes


def test_splits_and_files_of_tables_that_are_not_used_are_said(tmp_path) -> None:
    root = numbered(tmp_path / "set", train=[0, 1, 0, 1], spare=[0, 1], holdout=[1, 0, 1], test=[0, 1])
    (root / "README.md").write_text("about")
    (root / "images.zip").write_bytes(b"x")
    with keeping() as notes:
        splits = load("parquet", tmp_path, root=str(root), validation_fraction=0)
    assert sizes(splits) == (6, 0, 2)
    how = "(an archive in a folder is not unpacked, so unpack it yourself)"
    assert [note.message for note in notes] == [
        f"1 archive left out of {root} {how}: images.zip",
        f"1 file left out of {root}, no parquet or arrow file: README.md",
        f"1 file of {root} named after no split, read as train: spare.parquet",
        f"split holdout of dataset.root={root} is not used, 3 images; dataset.test_split=holdout tests on it",
    ]
    (root / "test.parquet").unlink()
    assert sizes(load("parquet", tmp_path, root=str(root), validation_fraction=0)) == (6, 0, 3)


TABLE_MISTAKES = {
    "label": ({}, "none of its columns may be the label; dataset.label_column=... is one of picture, kind, number"),
    "column": ({"label_column": "nope"}, "dataset.label_column=nope is not allowed"),
    "image": ({"label_column": "number", "image_column": "kind"}, "its column kind holds no images"),
    "values": ({"label_column": "picture"}, "its column picture holds no labels"),
}


@pytest.mark.parametrize("mistake", TABLE_MISTAKES)
def test_a_column_that_does_not_fit_is_one_line(mistake: str, tmp_path) -> None:
    table(2, [0.5, 1.5], number=[1, 2]).to_parquet(tmp_path / "train.parquet")
    keys, said = TABLE_MISTAKES[mistake]
    assert said in error_of("parquet", tmp_path, root=str(tmp_path), **keys)


def test_a_path_in_a_table_is_not_followed(tmp_path) -> None:
    secret = picture(tmp_path / "secret.png")
    (tmp_path / "data").mkdir()
    rows = {"image": [{"bytes": None, "path": str(secret)}] * 4, "label": ["a", "b"] * 2}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "data/train.parquet")
    splits = load("parquet", tmp_path, root=str(tmp_path / "data"))
    with pytest.raises(UserError, match="a file that lies elsewhere"):
        splits.train.image(0)


def test_offline_and_not_cached_is_one_line(tmp_path) -> None:
    assert "cannot be reached and the dataset is not in its cache" in error_of("hub", tmp_path, hub_id="someone/photos")
    assert "dataset.hub_id=tanganke/stanford_cars" in error_of("stanford_cars", tmp_path, root=None)
    assert "dataset.split=published needs dataset.root" in error_of(
        "caltech101", tmp_path, root=None, split="published"
    )


@pytest.mark.parametrize("hub_id", ["../photos", "/etc", "a/b/c", "~/x", "."])
def test_a_hub_id_is_no_path(hub_id: str, tmp_path) -> None:
    assert f"dataset.hub_id={hub_id} is not allowed" in error_of("hub", tmp_path, hub_id=hub_id)


@pytest.mark.parametrize(("option", "key"), [("imagefolder", "root"), ("parquet", "hub_id"), ("hub", "hub_id")])
def test_a_source_without_a_place_asks_for_it(option: str, key: str, tmp_path) -> None:
    assert f"give one, dataset.{key}=<" in error_of(option, tmp_path)


@pytest.fixture
def on_hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict], dict[str, object]]:
    """Puts tables, by split, where `datasets` finds any hub id; what it is asked for comes into the dictionary."""

    def put(tables: dict[str, datasets.Dataset]) -> dict[str, object]:
        asked: dict[str, object] = {}

        def load_from_hub(path: str, name: str | None = None, **more: object) -> datasets.DatasetDict:
            asked.update(path=path, name=name, **more)
            return datasets.DatasetDict(tables)

        monkeypatch.setattr(datasets, "load_dataset", load_from_hub)
        return asked

    return put


def test_a_hub_dataset_is_read_by_the_config_revision_splits_and_columns_that_are_named(tmp_path, on_hub) -> None:
    tables = {
        name: classed(table(count, [0, 1] * (count // 2), other=[0.5] * count), ["cat", "dog"])
        for name, count in (("fit", 4), ("more", 6), ("probe", 2))
    }
    for name, data in tables.items():
        second = data.select_columns("picture").rename_column("picture", "thumbnail")
        tables[name] = datasets.concatenate_datasets([data, second], axis=1)
    asked = on_hub(tables)
    keys = {"hub_id": "someone/photos", "train_split": "fit+more", "test_split": "probe", "label_column": "kind"}
    where = {"hub_config": "small", "hub_data_dir": "320px", "revision": "v2"}
    splits = load("hub", tmp_path, **keys, **where, image_column="picture", validation_fraction=0)
    assert asked == {"path": "someone/photos", "name": "small", "data_dir": "320px", "revision": "v2"}
    assert sizes(splits) == (10, 0, 2)
    assert splits.train.class_names == ("cat", "dog")
    assert red(splits.test) == [0, 10]
    said = error_of("hub", tmp_path, **keys)
    assert "dataset.hub_id=someone/photos: several (picture, thumbnail) of its columns may be the image" in said
    said = error_of("hub", tmp_path, **keys | {"train_split": "all", "image_column": "picture"})
    assert "it has no split 'all'; dataset.train_split=... is one of fit, more, probe" in said


ON_HUB = {  # set -> its hub id, label column, classes there, the names that they get, images of train, validation and test
    "caltech101": ("flwrlabs/caltech101", "label", ["accordion", "background_google"], ["accordion"], (1, 0, 1)),
    "cifar100_subset": ("uoft-cs/cifar100", "fine_label", ["apple", "sea_horse"], ["apple", "sea_horse"], (2, 0, 4)),
    "stanford_cars": (
        "tanganke/stanford_cars",
        "label",
        ["BMW M3 2012", "F 150 2007"],
        ["2012 BMW M3", "2007 F 150"],
        (4, 0, 4),
    ),
    "dtd": ("tanganke/dtd", "label", ["banded", "zigzagged"], ["banded", "zigzagged"], (8, 0, 4)),
    "imagenette": ("frgfm/imagenette", "label", ["n01440764", "n03394916"], ["tench", "French horn"], (4, 0, 4)),
    "oxford_flowers": ("dpdl-benchmark/oxford_flowers102", "label", ["rose", "iris"], ["rose", "iris"], (4, 4, 4)),
    "oxford_pets": ("timm/oxford-iiit-pet", "label", ["Abyssinian", "pug"], ["abyssinian", "pug"], (4, 0, 4)),
}
ON_HUB_SPLITS = {  # what these have there, where it is not train and test alone
    "caltech101": ["train"],
    "dtd": ["train", "validation", "test"],
    "imagenette": ["train", "validation"],
    "oxford_flowers": ["train", "validation", "test"],
}


@pytest.mark.parametrize("name", ON_HUB)
def test_each_named_set_on_the_hub_is_the_one_on_disk(name: str, tmp_path, on_hub, monkeypatch) -> None:
    monkeypatch.setattr(cifar, "PER_CLASS", 1)
    hub_id, label, classes, names, expected = ON_HUB[name]
    data = classed(table(4, [0, 1] * 2), classes).rename_column("kind", label)
    asked = on_hub(dict.fromkeys(ON_HUB_SPLITS.get(name, ["train", "test"]), data))
    splits = load(name, tmp_path, root=None, check_counts=False, validation_fraction=0)
    assert asked["path"] == hub_id
    assert splits.train.class_names == tuple(names)
    assert sizes(splits) == expected


def test_a_named_set_from_the_hub_is_renamed_joined_and_counted(tmp_path, on_hub) -> None:
    parts = {split: classed(table(2, [0, 1]), ["707-320", "F/A-18"]) for split in ("train", "validation", "test")}
    asked = on_hub({split: part.rename_column("kind", "variant") for split, part in parts.items()})
    splits = load("fgvc_aircraft", tmp_path, root=None, check_counts=False, validation_fraction=0)
    assert asked["path"] == "HuggingFaceM4/FGVC-Aircraft"
    assert sizes(splits) == (4, 0, 2)
    assert sizes(load("fgvc_aircraft", tmp_path, root=None, check_counts=False, split="published")) == (2, 2, 2)
    assert "has 2 classes, 4 train images, 2 test images" in error_of("fgvc_aircraft", tmp_path, root=None)
