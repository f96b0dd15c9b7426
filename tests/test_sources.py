"""Every source of labelled images: the layouts that people have, what is checked, and what is said when it is wrong."""

import io
import json
import os
import tarfile
import time
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from conftest import compose
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from scipy.io import savemat

from distdiff.caching.stages import StageCache
from distdiff.classification.command import train
from distdiff.classification.training import ClassifierTrainer, few_shot_training_set
from distdiff.config.composition import load_option
from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.loading import load_dataset, prompts, sentences
from distdiff.data.sets import cifar
from distdiff.data.splits import check_measurable
from distdiff.errors import UserError
from distdiff.expansion.command import expand
from distdiff.expansion.expander import Expander
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.names import safe_name
from distdiff.expansion.plan import ExpansionPlan

SPLITS = ("train", "validation", "test")


def configured(option: str, tmp_path: Path, **keys: object) -> DictConfig:
    """`dataset=<option>` with some keys set, its paths below `tmp_path`."""
    dataset = load_option("dataset", option)
    for key, value in keys.items():
        OmegaConf.update(dataset, key, value)
    paths = {"data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache")}
    return OmegaConf.create({"paths": paths, "dataset": dataset}).dataset


def load(option: str, tmp_path: Path, **keys: object) -> DatasetSplits:
    return load_dataset(configured(option, tmp_path, **keys))


def picture(path: Path, value: int = 0, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (value % 256, value // 256, 77)).save(path)
    return path


def contents(images: LabelledImages) -> dict[str, list[str]]:
    """Keys by class."""
    return {
        name: [key for key, label in zip(images.keys, images.labels, strict=True) if label == number]
        for number, name in enumerate(images.class_names)
    }


def sizes(splits: DatasetSplits) -> tuple[int, ...]:
    return tuple(len(getattr(splits, split)) for split in SPLITS)


def red(images: LabelledImages) -> list[int]:
    """The value that `picture` painted each image with."""
    return [images.image(position).getpixel((0, 0))[0] for position in range(len(images))]


def error_of(option: str, tmp_path: Path, **keys: object) -> str:
    with pytest.raises(UserError) as caught:
        load(option, tmp_path, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The sets of the paper and the published code: small copies in the layouts of their authors.


def cars(top: Path) -> None:
    names = np.array(["Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012", "BMW M3 Coupe 2012"], dtype=object)
    (top / "devkit").mkdir(parents=True)
    savemat(top / "devkit/cars_meta.mat", {"class_names": names.reshape(1, -1)})
    kind = [(key, object) for key in ("bbox_x1", "class", "fname")]
    for part, file, rows in (
        ("train", "devkit/cars_train_annos.mat", [(1, 2), (2, 1), (3, 3), (4, 1)]),
        ("test", "cars_test_annos_withlabels.mat", [(1, 3), (2, 1), (3, 2)]),
    ):
        annotations = np.array([[(5, label, f"{number:05d}.jpg") for number, label in rows]], dtype=kind)
        savemat(top / file, {"annotations": annotations})
        for number, label in rows:
            picture(top / f"cars_{part}" / f"{number:05d}.jpg", 40 * label)


def test_stanford_cars(tmp_path) -> None:
    cars(tmp_path / "data/stanford_cars")
    splits = load("stanford_cars", tmp_path, check_counts=False, validation_fraction=0)
    names = ("2012 Acura RL Sedan", "2012 Ram C/V Cargo Van Minivan", "2012 BMW M3 Coupe")
    assert splits.train.class_names == splits.test.class_names == names
    assert contents(splits.train) == dict(
        zip(names, (["00002.jpg", "00004.jpg"], ["00001.jpg"], ["00003.jpg"]), strict=True)
    )
    assert splits.test.labels.tolist() == [2, 0, 1]
    assert red(splits.test) == pytest.approx([120, 40, 80], abs=3)
    assert prompts(configured("stanford_cars", tmp_path), names)[0] == "a photo of a 2012 Acura RL Sedan."


def test_stanford_cars_without_test_labels_says_what_is_missing(tmp_path) -> None:
    top = tmp_path / "cars"
    cars(top)
    (top / "cars_test_annos_withlabels.mat").unlink()
    message = error_of("stanford_cars", tmp_path, root=str(top))
    assert message.startswith(f"dataset.root={top}: there is no cars_test_annos_withlabels.mat")
    assert "get stanford_cars from https://" in message
    (top / "cars_test_annos_withlabels.mat").write_bytes(b"")
    assert "cars_test_annos_withlabels.mat cannot be read" in error_of("stanford_cars", tmp_path, root=str(top))


def test_a_list_that_names_a_file_elsewhere_is_refused(tmp_path) -> None:
    textures(tmp_path / "dtd")
    (tmp_path / "dtd/labels/test1.txt").write_text("../../secret.jpg\n")
    assert "names a file outside of it" in error_of("dtd", tmp_path, root=str(tmp_path / "dtd"))


def textures(top: Path) -> None:
    lists = {
        "train1": ["banded/banded_1.jpg", "zigzagged/z_1.jpg"],
        "val1": ["banded/banded_2.jpg", "zigzagged/z_2.jpg"],
    }
    lists["test1"] = ["zigzagged/z_3.jpg", "banded/banded_3.jpg"]
    (top / "labels").mkdir(parents=True)
    for name, files in lists.items():
        (top / "labels" / f"{name}.txt").write_text("".join(f"{file}\n" for file in files))
        for file in files:
            picture(top / "images" / file)


@pytest.mark.parametrize(("split", "expected"), [("official", (2, 2, 2)), ("published", (4, 0, 2))])
def test_dtd_trains_on_train_and_val_of_its_first_split(split: str, expected: tuple[int, ...], tmp_path) -> None:
    textures(tmp_path / "dtd")
    splits = load("dtd", tmp_path, root=str(tmp_path / "dtd"), check_counts=False, split=split)
    assert sizes(splits) == expected
    assert contents(splits.test) == {"banded": ["banded_3.jpg"], "zigzagged": ["z_3.jpg"]}
    assert prompts(configured("dtd", tmp_path), ("banded",)) == ["banded texture."]


def test_oxford_pets(tmp_path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/trainval.txt").write_text(
        "#image class species breed\nAbyssinian_1 1 1 1\nyorkshire_terrier_1 2 2 1\n"
    )
    (tmp_path / "annotations/test.txt").write_text("yorkshire_terrier_2 2 2 1\nAbyssinian_2 1 1 1\n")
    for pet in ("Abyssinian_1", "Abyssinian_2", "yorkshire_terrier_1", "yorkshire_terrier_2"):
        picture(tmp_path / "images" / f"{pet}.jpg")
    splits = load("oxford_pets", tmp_path, root=str(tmp_path), check_counts=False)
    assert contents(splits.train) == {
        "abyssinian": ["Abyssinian_1.jpg"],
        "yorkshire_terrier": ["yorkshire_terrier_1.jpg"],
    }
    assert splits.test.labels.tolist() == [1, 0]
    assert (
        "yorkshire terrier, a type of pet" in prompts(configured("oxford_pets", tmp_path), splits.train.class_names)[1]
    )


@pytest.mark.parametrize(
    ("split", "expected"), [("official", {"train": 4}), ("published", {"train": 2, "validation": 2})]
)
def test_fgvc_aircraft_trains_with_val_or_as_published_without(split: str, expected: dict, tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "variants.txt").write_text("707-320\nF/A-18\n")
    for number, part in enumerate(("train", "val", "test")):
        (data / f"images_variant_{part}.txt").write_text(f"1{number} F/A-18\n2{number} 707-320\n")
        for image in (1, 2):
            picture(data / "images" / f"{image}{number}.jpg")
    keys = {"root": str(tmp_path), "check_counts": False, "split": split, "validation_fraction": 0}
    splits = load("fgvc_aircraft", tmp_path, **keys)
    assert sizes(splits) == (expected["train"], expected.get("validation", 0), 2)
    assert contents(splits.test) == {"707-320": ["22.jpg"], "F/A-18": ["12.jpg"]}


def test_oxford_flowers_by_the_authors_splits(tmp_path) -> None:
    for number in range(1, 7):
        picture(tmp_path / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[1, 102, 1, 102, 1, 102]], dtype=np.uint8)})
    savemat(tmp_path / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[6, 5]]})
    splits = load("oxford_flowers", tmp_path, root=str(tmp_path), check_counts=False)
    assert splits.train.class_names == ("pink primrose", "blackberry lily")
    assert [contents(getattr(splits, split)) for split in ("train", "test")] == [
        {"pink primrose": ["image_00001.jpg"], "blackberry lily": ["image_00002.jpg"]},
        {"pink primrose": ["image_00005.jpg"], "blackberry lily": ["image_00006.jpg"]},
    ]
    assert sizes(splits) == (2, 2, 2)


def test_oxford_flowers_as_published_test_on_valid(tmp_path) -> None:
    for number in (1, 2, 10):
        picture(tmp_path / f"train/{number}/a.jpg", number)
        picture(tmp_path / f"valid/{number}/b.jpg", number)
        picture(tmp_path / f"test/{number}/c.jpg", number)
    (tmp_path / "cat_to_name.json").write_text(json.dumps({"10": "globe thistle", "1": "pink primrose", "2": "orchid"}))
    splits = load("oxford_flowers", tmp_path, root=str(tmp_path), check_counts=False, split="published")
    assert contents(splits.test) == {"pink primrose": ["b.jpg"], "orchid": ["b.jpg"], "globe thistle": ["b.jpg"]}
    assert sizes(splits) == (3, 0, 3)


def test_caltech101_leaves_out_background_and_cut_out_faces(tmp_path) -> None:
    for name in ("BACKGROUND_Google", "Faces_easy", "accordion", "ceiling_fan"):
        for number in range(10):
            picture(tmp_path / "101_ObjectCategories" / name / f"image_{number:04d}.jpg")
    splits = load("caltech101", tmp_path, root=str(tmp_path), check_counts=False)
    assert splits.train.class_names == ("accordion", "ceiling_fan")
    assert sizes(splits) == (12, 2, 6)
    for part in ("train", "test"):
        for name in ("Faces_easy", "accordion", "ceiling_fan"):
            picture(tmp_path / part / name / f"{part}_1.jpg")
    published = load("caltech101", tmp_path, root=str(tmp_path), check_counts=False, split="published")
    assert contents(published.test) == {"accordion": ["test_1.jpg"], "ceiling_fan": ["test_1.jpg"]}


def test_imagenette_ids_have_names(tmp_path) -> None:
    for part in ("train", "val"):
        for wnid in ("n01440764", "n03394916"):
            picture(tmp_path / "data/imagenette2-320" / part / wnid / f"{wnid}_1.JPEG")
    splits = load("imagenette", tmp_path, check_counts=False)
    assert contents(splits.test) == {"tench": ["n01440764_1.JPEG"], "French horn": ["n03394916_1.JPEG"]}


def test_cifar100_subset_is_read_from_the_binary_version(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cifar, "PER_CLASS", 2)
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "fine_label_names.txt").write_text("apple\nsea_horse\n")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    for part in ("train", "test"):
        with open(folder / f"{part}.bin", "wb") as file:
            for number, image in enumerate(pixels):
                file.write(bytes([9, number % 2]) + image.tobytes())
    splits = load("cifar100_subset", tmp_path, root=str(tmp_path), check_counts=False, validation_fraction=0)
    assert contents(splits.train) == {"apple": ["00000", "00002"], "sea_horse": ["00001", "00003"]}
    assert len(splits.test) == 6
    assert np.array_equal(np.asarray(splits.train.image(1)), pixels[1].transpose(1, 2, 0))
    for name in ("apple", "sea_horse"):
        picture(tmp_path / "CIFAR_10000" / name / "7.png")
    published = load("cifar100_subset", tmp_path, root=str(tmp_path), check_counts=False, split="published")
    assert contents(published.train) == {"apple": ["7.png"], "sea_horse": ["7.png"]}
    (folder / "test.bin").write_bytes(b"abc")
    assert "no multiple of 3,074" in error_of("cifar100_subset", tmp_path, root=str(tmp_path))


@pytest.mark.parametrize(("name", "channels"), [("pathmnist", (3,)), ("breastmnist", ()), ("bloodmnist", (3,))])
def test_medmnist_from_its_npz(name: str, channels: tuple[int, ...], tmp_path) -> None:
    rng, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28, *channels), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 2).reshape(-1, 1).astype(np.uint8)
    (tmp_path / "data" / name).mkdir(parents=True)
    np.savez_compressed(tmp_path / "data" / name / f"{name}.npz", **arrays)
    splits = load(name, tmp_path, check_counts=False)
    assert sizes(splits) == (4, 2, 3)
    assert splits.train.labels.tolist() == [0, 1, 0, 1]
    shown = np.asarray(splits.test.image(2))
    assert shown.shape == (28, 28, 3)
    assert np.array_equal(shown if channels else shown[..., 0], arrays["test_images"][2])
    assert "counts=false" in error_of(name, tmp_path)
    for part in ("train", "test"):
        for label in ("one_kind", "other"):
            picture(tmp_path / "published" / part / label / "1.png")
    published = load(name, tmp_path, root=str(tmp_path / "published"), check_counts=False, split="published")
    assert sizes(published) == (2, 0, 2)


def test_medmnist_never_unpickles(tmp_path) -> None:
    arrays = {
        f"{part}_{what}": np.array([{}], dtype=object)
        for part in ("train", "val", "test")
        for what in ("images", "labels")
    }
    np.savez(tmp_path / "pathmnist.npz", **arrays)
    assert "pathmnist.npz cannot be read" in error_of("pathmnist", tmp_path, root=str(tmp_path / "pathmnist.npz"))


PUBLISHED_TEMPLATES = {
    "dtd": "{} texture.",
    "pathmnist": "a colon pathological image of {}.",
    "bloodmnist": "a photo of {}, a type of cell.",
    "breastmnist": "a photo of {} ultrasound image.",
    **dict.fromkeys(("caltech101", "cifar100_subset", "stanford_cars", "imagenette"), "a photo of a {}."),
}


def test_templates_are_the_published_ones() -> None:
    assert {name: load_option("dataset", name).prompt_template for name in PUBLISHED_TEMPLATES} == PUBLISHED_TEMPLATES


@pytest.mark.parametrize("name", [*PUBLISHED_TEMPLATES, "oxford_flowers", "oxford_pets", "fgvc_aircraft"])
def test_a_named_set_that_is_not_there_says_where_to_get_it(name: str, tmp_path) -> None:
    message = error_of(name, tmp_path)
    assert "no such folder" in message
    assert f"get {name} from https://" in message


def test_a_partial_copy_is_refused_with_both_counts(tmp_path) -> None:
    cars(tmp_path / "cars")
    message = error_of("stanford_cars", tmp_path, root=str(tmp_path / "cars"))
    assert "196 classes, 8,144 train images, 8,041 test images" in message
    assert "3 classes, 4 train images, 3 test images" in message


def test_a_listed_image_that_is_missing_is_counted_and_said(tmp_path, capsys) -> None:
    textures(tmp_path)
    (tmp_path / "images/banded/banded_1.jpg").unlink()
    splits = load("dtd", tmp_path, root=str(tmp_path), check_counts=False, split="published")
    assert sizes(splits) == (3, 0, 2)
    assert "1 of 4 listed images are not there" in capsys.readouterr().out


# Tables that `datasets` reads.


def table(count: int, labels: list, **columns: list) -> datasets.Dataset:
    images = [Image.new("RGB", (6, 6), (10 * number, 0, 0)) for number in range(count)]
    rows = {"picture": images, "kind": labels, **columns}
    features = {
        "picture": datasets.Image(),
        **{key: datasets.Dataset.from_dict({key: rows[key]}).features[key] for key in rows if key != "picture"},
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def classed(data: datasets.Dataset, names: list[str]) -> datasets.Dataset:
    return data.cast_column("kind", datasets.ClassLabel(names=names))


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
    arrow = next((tmp_path / "saved/train").glob("*.arrow"))
    assert sizes(load("parquet", tmp_path, root=str(arrow))) == (4, 2, 2)


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


def test_a_named_set_from_the_hub_is_renamed_joined_and_counted(tmp_path, monkeypatch) -> None:
    parts = {split: classed(table(2, [0, 1]), ["707-320", "F/A-18"]) for split in ("train", "validation", "test")}
    hub = datasets.DatasetDict({split: part.rename_column("kind", "variant") for split, part in parts.items()})
    asked = {}

    def load_from_hub(path: str, *rest: object, **more: object) -> datasets.DatasetDict:
        asked.update(path=path, **more)
        return hub

    monkeypatch.setattr(datasets, "load_dataset", load_from_hub)
    splits = load("fgvc_aircraft", tmp_path, root=None, check_counts=False, validation_fraction=0)
    assert asked["path"] == "HuggingFaceM4/FGVC-Aircraft"
    assert sizes(splits) == (4, 0, 2)
    assert sizes(load("fgvc_aircraft", tmp_path, root=None, check_counts=False, split="published")) == (2, 2, 2)
    assert "has 2 classes, 4 train images, 2 test images" in error_of("fgvc_aircraft", tmp_path, root=None)


# Folders as people have them.


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
    assert "5 files left out of" in said
    assert "1 folder with a leading dot left out of" in said
    assert "1 class left out, without a training image: empty" in said
    found = contents(splits.train)
    for name, keys in contents(splits.test).items():
        found[name] += keys
    assert sorted(found["train"]) == sorted(names)
    assert sorted(found["cat"]) == sorted([*names, "linked.png", "bad\\xff.png"])
    assert splits.train.fingerprint()
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
    assert f"if cat, dog are classes, dataset.root={tmp_path}/photos" in capsys.readouterr().out.replace("\n", "")


def test_one_class_only_is_a_dataset(tmp_path) -> None:
    for number in range(4):
        picture(tmp_path / "cat" / f"{number}.png")
    assert sizes(load("imagefolder", tmp_path, root=str(tmp_path))) == (2, 1, 1)


@pytest.mark.parametrize(("count", "expected"), [(1, (2, 0, 0)), (2, (2, 0, 2)), (4, (4, 2, 2)), (10, (12, 4, 4))])
def test_tiny_folders_are_carved_class_by_class(count: int, expected: tuple[int, ...], tmp_path) -> None:
    for name in ("cat", "dog"):
        for number in range(count):
            picture(tmp_path / name / f"{number}.png")
    splits = load("imagefolder", tmp_path, root=str(tmp_path))
    assert sizes(splits) == expected
    keys = [
        {*zip(part.labels.tolist(), part.keys, strict=True)} for part in (splits.train, splits.validation, splits.test)
    ]
    assert len(keys[0] | keys[1] | keys[2]) == 2 * count
    if count == 1:
        with pytest.raises(UserError, match=r"no test image of 2 of 2 classes \(cat, dog\)"):
            check_measurable(splits.test, "test")
    else:
        check_measurable(splits.test, "test")


def test_thousands_of_files_are_listed_in_no_time(tmp_path) -> None:
    for folder in range(5):
        (tmp_path / str(folder)).mkdir()
        for number in range(1000):
            os.close(os.open(tmp_path / str(folder) / f"{number}.jpg", os.O_CREAT | os.O_WRONLY))
    config = configured("imagefolder", tmp_path, root=str(tmp_path))
    started = time.perf_counter()
    splits = load_dataset(config)
    assert time.perf_counter() - started < 1  # measured: 1.3 s for 100,000, carving included
    assert sum(sizes(splits)) == 5_000


METADATA = [
    {"file_name": "images/b.png", "label": 10, "split": "train"},
    {"file_name": "images/a.png", "label": 9, "split": "train"},
    {"file_name": "images/c.png", "label": 9, "split": "val"},
    {"file_name": "images/d.png", "label": 10, "split": "test"},
]


def write_metadata(top: Path, kind: str, rows: list[dict]) -> Path:
    file = top / f"metadata.{kind}"
    if kind == "csv":
        lines = [",".join(rows[0]), *(",".join("" if v is None else str(v) for v in row.values()) for row in rows)]
        file.write_text("\n".join(lines), encoding="utf-8-sig")
    elif kind == "jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        data = datasets.Dataset.from_list(rows)
        data.cast_column("label", datasets.ClassLabel(num_classes=11)).to_parquet(file)
    return file


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_metadata_file_gives_labels_and_splits(kind: str, tmp_path) -> None:
    for row in METADATA:
        picture(tmp_path / row["file_name"])
    write_metadata(tmp_path, kind, METADATA)
    splits = load("imagefolder", tmp_path, root=str(tmp_path))
    assert contents(splits.train) == {"9": ["images/a.png"], "10": ["images/b.png"]}
    assert contents(splits.validation) == {"9": ["images/c.png"], "10": []}
    assert contents(splits.test) == {"9": [], "10": ["images/d.png"]}


METADATA_MISTAKES = {
    "elsewhere": ({"file_name": "../secret.png"}, "row 1: file_name '../secret.png' is not allowed"),
    "absolute": ({"file_name": "/etc/passwd"}, "row 1: file_name '/etc/passwd' is not allowed"),
    "missing": ({"file_name": "images/e.png"}, "1 file that it lists cannot be found: images/e.png"),
    "twice": ({"file_name": "images/a.png"}, "listed more than once: images/a.png"),
    "label": ({"label": None}, "row 1: None is no label"),
    "split": (
        {"split": "holdout"},
        "row 1: split 'holdout' is not allowed: one of train, training, validation, valid, val, test, testing",
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


def archived(path: Path, members: dict[str, bytes], link: str | None = None) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            if link:
                info = zipfile.ZipInfo(link)
                info.external_attr = 0o120777 << 16
                archive.writestr(info, "/etc")
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            archive.addfile(info)
    return path


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz"])
def test_an_archive_is_unpacked_once(name: str, tmp_path) -> None:
    members = {f"photos/{cls}/{number}.png": png() for cls in ("cat", "dog") for number in range(4)}
    path = archived(tmp_path / name, members | {"photos/.DS_Store": b"x", "__MACOSX/photos/cat/0.png": b"x"})
    splits = load("imagefolder", tmp_path, root=str(path))
    assert sizes(splits) == (4, 2, 2)
    assert splits.train.image(0).size == (8, 8)
    (kept,) = (tmp_path / "cache/archives").glob("*/content/photos/cat")
    (kept / "0.png").unlink()  # seen again, for nothing is unpacked a second time
    assert sum(sizes(load("imagefolder", tmp_path, root=str(path)))) == 7


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("bad", ["../out.png", "/abs.png", "cat/../../out.png", "c:\\out.png", "link"])
def test_an_archive_cannot_write_elsewhere(bad: str, suffix: str, tmp_path) -> None:
    place = tmp_path / "in"
    place.mkdir()
    members = {"cat/1.png": png()} | ({} if bad == "link" else {bad: png()})
    path = archived(place / f"photos{suffix}", members, link="cat/link" if bad == "link" else None)
    message = error_of("imagefolder", tmp_path, root=str(path))
    assert "it holds a link or device" in message or "it holds a path that leads out of it" in message
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_damaged_archive_is_one_line(suffix: str, tmp_path) -> None:
    path = tmp_path / f"photos{suffix}"
    path.write_bytes(b"PK\x03\x04 no archive")
    assert "cannot unpack it" in error_of("imagefolder", tmp_path, root=str(path))


# Names, prompts, parts of a set.


WORD_FILES = {
    "words.json": '{"n01": "tench", "n02": "dog"}',
    "list.json": '["tench", "dog"]',
    "words.csv": "n01,tench\nn02,dog\nn99,more",
    "ids.txt": "n01 tench\nn02 dog\n",
    "order.txt": "tench\ndog\n",
}


@pytest.mark.parametrize("name", WORD_FILES)
def test_class_ids_are_mapped_by_a_file(name: str, tmp_path) -> None:
    (tmp_path / name).write_text(WORD_FILES[name])
    config = configured("imagefolder", tmp_path, class_names=str(tmp_path / name))
    assert prompts(config, ("n01", "n02")) == ["a photo of a tench.", "a photo of a dog."]


def test_class_names_may_be_numbers(tmp_path) -> None:
    assert (
        prompts(configured("digits", tmp_path, class_names={0: "zero"}), ("0", "1"))[0] == "a photo of the digit zero."
    )


def test_class_names_that_fit_no_class_are_refused(tmp_path) -> None:
    (tmp_path / "w.txt").write_text("a b\n")
    with pytest.raises(UserError, match="it names none of the 2 classes, such as 'n01'"):
        prompts(configured("imagefolder", tmp_path, class_names=str(tmp_path / "w.txt")), ("n01", "n02"))
    with pytest.raises(UserError, match="there is no class 'n03'; one of n01, n02"):
        prompts(configured("imagefolder", tmp_path, class_names={"n03": "x"}), ("n01", "n02"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", '{"sea_horse": ["a {} in the sea", "a small {}"], "cat": "one cat"}'),
        ("p.csv", "sea_horse,a {} in the sea\ncat,one cat\nsea_horse,a small {}\n"),
    ],
)
def test_a_prompts_file_has_several_sentences_a_class(name: str, text: str, tmp_path) -> None:
    (tmp_path / name).write_text(text)
    config = configured("imagefolder", tmp_path, prompts_file=str(tmp_path / name))
    assert sentences(config, ("cat", "sea_horse")) == [["one cat"], ["a sea horse in the sea", "a small sea horse"]]
    with pytest.raises(UserError, match="no sentence for 1 class, such as 'dog'"):
        sentences(config, ("cat", "dog"))


def folder_of(tmp_path: Path, **counts: int) -> str:
    for name, count in counts.items():
        for number in range(count):
            picture(tmp_path / "photos/train" / name / f"{number}.png")
        picture(tmp_path / "photos/test" / name / "0.png")
    return str(tmp_path / "photos")


def test_fraction_cap_and_indices_choose_training_images(tmp_path) -> None:
    root = folder_of(tmp_path, cat=8, dog=2)
    keys = {"root": root, "validation_fraction": 0}

    def count(**more: object) -> list[int]:
        return np.bincount(load("imagefolder", tmp_path, **keys, **more).train.labels).tolist()

    assert count() == [8, 2]
    assert count(fraction=0.5) == [4, 1]
    assert count(fraction=0.01) == [1, 1]
    assert count(max_images=5) == [4, 1]
    assert count(max_images=2) == [1, 1]
    assert load("imagefolder", tmp_path, **keys, indices=[9, 0]).train.keys == ("1.png", "0.png")
    assert "at least one of each of the 2 classes" in error_of("imagefolder", tmp_path, **keys, max_images=1)
    assert "there are 10 training images" in error_of("imagefolder", tmp_path, **keys, indices=[10])
    assert "1 of 2 classes have no image" in error_of("imagefolder", tmp_path, **keys, indices=[0])


# What becomes of it.


def test_one_image_a_class_can_be_expanded_but_not_measured(small_run: list[str], tmp_path) -> None:
    for name in ("cat", "dog"):
        picture(tmp_path / "photos" / name / "1.png", 40)
    given = ["dataset=imagefolder", f"dataset.root={tmp_path}/photos"]
    made = expand(compose("expand", [*small_run, *given]), tmp_path)
    assert len(list(made.rglob("*.png"))) == 4
    with pytest.raises(UserError, match="no test image of 2 of 2 classes"):
        train(compose("train", [*given, "logger=none", f"paths.output_dir={tmp_path}"]), tmp_path)


def expansion(small_run: list[str], root: Path, *overrides: str) -> ExpansionJob:
    config = compose("expand", [*small_run, "dataset=imagefolder", f"dataset.root={root}", "guidance=none", *overrides])
    cache = StageCache(config.paths.cache_dir)
    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    return Expander(config, ClassifierTrainer(config, cache), cache).guided(data, config.guidance, config.seed)


def test_each_image_draws_its_sentence_by_its_own_seed(small_run, image_folder, tmp_path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"cat": ["a cat", "the {}", "shared"], "train": ["shared"]}))
    plain, several = (expansion(small_run, image_folder, *more) for more in ([], [f"dataset.prompts_file={file}"]))
    assert plain.ingredients["prompts"] == ["a photo of a cat.", "a photo of a train."]
    assert several.ingredients["prompts"] == [["a cat", "the cat", "shared"], ["shared"]]
    assert plain.fingerprint != several.fingerprint
    synthesizer = several.synthesizer("test: expand")
    assert len(synthesizer.prompts.positive) == 3  # each distinct sentence once
    items = list(ExpansionPlan(several.sources, 8, 0.5, several.seed))
    drawn = synthesizer.prompt_numbers(items).tolist()
    for item, number in zip(items, drawn, strict=True):
        assert synthesizer.prompt_numbers([item]).tolist() == [number]
        assert number == 2 or item.class_name == "cat"
    assert {number for item, number in zip(items, drawn, strict=True) if item.class_name == "cat"} == {0, 1, 2}


def test_a_prompts_file_with_the_templates_sentence_changes_no_image(small_run, image_folder, tmp_path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({name: "a photo of a {}." for name in ("cat", "train")}))
    made = []
    for more in ([], [f"dataset.prompts_file={file}"]):
        job = expansion(small_run, image_folder, *more)
        items = [ExpansionPlan(job.sources, 1, 0.5, job.seed)[index] for index in range(3)]
        made.append(job.synthesizer("test: expand")(items).images)
    assert torch.equal(*made)
