"""The sets of the paper and the published code, from small copies in the layouts of their authors."""

import numpy as np
import pytest
from layouts import (
    aircraft,
    caltech,
    cars,
    cifar100,
    flowers,
    imagenette,
    medmnist,
    pets,
    picture,
    published_flowers,
    textures,
)
from sources import configured, contents, error_of, load, red, sizes

from distdiff.commands.configuration import load_option
from distdiff.data.datasets import prompts
from distdiff.data.sources import cifar
from distdiff.option_files.search_path import CONFIG_DIR


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


@pytest.mark.parametrize(("split", "expected"), [("authors", (2, 2, 2)), ("published", (4, 0, 2))])
def test_dtd_trains_on_train_and_val_of_its_first_split(split: str, expected: tuple[int, ...], tmp_path) -> None:
    textures(tmp_path / "dtd")
    splits = load("dtd", tmp_path, root=str(tmp_path / "dtd"), check_counts=False, split=split)
    assert sizes(splits) == expected
    assert contents(splits.test) == {"banded": ["banded_3.jpg"], "zigzagged": ["z_3.jpg"]}
    assert prompts(configured("dtd", tmp_path), ("banded",)) == ["banded texture."]


def test_oxford_pets(tmp_path) -> None:
    pets(tmp_path)
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
    ("split", "expected"), [("authors", {"train": 4}), ("published", {"train": 2, "validation": 2})]
)
def test_fgvc_aircraft_trains_with_val_or_as_published_without(split: str, expected: dict, tmp_path) -> None:
    aircraft(tmp_path)
    keys = {"root": str(tmp_path), "check_counts": False, "split": split, "validation_fraction": 0}
    splits = load("fgvc_aircraft", tmp_path, **keys)
    assert sizes(splits) == (expected["train"], expected.get("validation", 0), 2)
    assert contents(splits.test) == {"707-320": ["22.jpg"], "F/A-18": ["12.jpg"]}


def test_oxford_flowers_by_the_authors_splits(tmp_path) -> None:
    flowers(tmp_path)
    splits = load("oxford_flowers", tmp_path, root=str(tmp_path), check_counts=False)
    assert splits.train.class_names == ("pink primrose", "blackberry lily")
    assert [contents(getattr(splits, split)) for split in ("train", "test")] == [
        {"pink primrose": ["image_00001.jpg"], "blackberry lily": ["image_00002.jpg"]},
        {"pink primrose": ["image_00005.jpg"], "blackberry lily": ["image_00006.jpg"]},
    ]
    assert sizes(splits) == (2, 2, 2)


def test_oxford_flowers_as_published_test_on_valid(tmp_path) -> None:
    published_flowers(tmp_path)
    splits = load("oxford_flowers", tmp_path, root=str(tmp_path), check_counts=False, split="published")
    assert contents(splits.test) == {"pink primrose": ["b.jpg"], "orchid": ["b.jpg"], "globe thistle": ["b.jpg"]}
    assert sizes(splits) == (3, 0, 3)


def test_caltech101_leaves_out_background_and_cut_out_faces(tmp_path) -> None:
    caltech(tmp_path)
    splits = load("caltech101", tmp_path, root=str(tmp_path), check_counts=False)
    assert splits.train.class_names == ("accordion", "ceiling_fan")
    assert sizes(splits) == (12, 2, 6)
    for part in ("train", "test"):
        for name in ("Faces_easy", "accordion", "ceiling_fan"):
            picture(tmp_path / part / name / f"{part}_1.jpg")
    published = load("caltech101", tmp_path, root=str(tmp_path), check_counts=False, split="published")
    assert contents(published.test) == {"accordion": ["test_1.jpg"], "ceiling_fan": ["test_1.jpg"]}


def test_imagenette_ids_have_names(tmp_path) -> None:
    imagenette(tmp_path / "data/imagenette2-320")
    splits = load("imagenette", tmp_path, check_counts=False)
    assert contents(splits.test) == {"tench": ["n01440764_1.JPEG"], "French horn": ["n03394916_1.JPEG"]}


def test_cifar100_subset_is_read_from_the_binary_version(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cifar, "PER_CLASS", 2)
    pixels = cifar100(tmp_path / "cifar-100-binary")
    splits = load("cifar100_subset", tmp_path, root=str(tmp_path), check_counts=False, validation_fraction=0)
    assert contents(splits.train) == {"apple": ["00000", "00002"], "sea_horse": ["00001", "00003"]}
    assert len(splits.test) == 6
    assert np.array_equal(np.asarray(splits.train.image(1)), pixels[1].transpose(1, 2, 0))
    for name in ("apple", "sea_horse"):
        picture(tmp_path / "CIFAR_10000" / name / "7.png")
    published = load("cifar100_subset", tmp_path, root=str(tmp_path), check_counts=False, split="published")
    assert contents(published.train) == {"apple": ["7.png"], "sea_horse": ["7.png"]}
    (tmp_path / "cifar-100-binary/test.bin").write_bytes(b"abc")
    assert "no multiple of 3,074" in error_of("cifar100_subset", tmp_path, root=str(tmp_path))


@pytest.mark.parametrize(("name", "channels"), [("pathmnist", (3,)), ("breastmnist", ()), ("bloodmnist", (3,))])
def test_medmnist_from_its_npz(name: str, channels: tuple[int, ...], tmp_path) -> None:
    arrays = medmnist(tmp_path / "data" / name / f"{name}.npz", channels)
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


def test_a_larger_medmnist_npz_is_found_and_may_be_named(tmp_path) -> None:
    medmnist(tmp_path / "bloodmnist_64.npz", side=64)
    for root in (tmp_path, tmp_path / "bloodmnist_64.npz"):
        splits = load("bloodmnist", tmp_path, root=str(root), check_counts=False)
        assert sizes(splits) == (4, 2, 3)
        assert splits.train.image(0).size == (64, 64)
        assert splits.train.class_names[:2] == ("basophil", "eosinophil")


SAME_FILES = {
    "stanford_cars": (cars, (4, 0, 3)),
    "oxford_pets": (pets, (2, 0, 2)),
    "imagenette": (imagenette, (2, 0, 2)),
}


@pytest.mark.parametrize("name", SAME_FILES)
def test_published_trains_on_every_training_image_of_the_same_files(name: str, tmp_path) -> None:
    make, expected = SAME_FILES[name]
    make(tmp_path / "data")
    splits = load(name, tmp_path, root=str(tmp_path / "data"), check_counts=False, split="published")
    assert sizes(splits) == expected


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


def test_templates_that_are_ours_are_marked() -> None:
    for name, kind in (("oxford_flowers", "flower"), ("oxford_pets", "pet"), ("fgvc_aircraft", "aircraft")):
        assert load_option("dataset", name).prompt_template == f"a photo of a {{}}, a type of {kind}."
        (line,) = [
            line for line in (CONFIG_DIR / f"dataset/{name}.yaml").read_text().splitlines() if "template" in line
        ]
        assert line.endswith("# ours: the published code has none")


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


NUM_CLASSES = {  # what makes a small copy, and the classes of a whole one
    "caltech101": (caltech, 100),
    "cifar100_subset": (cifar100, 100),
    "stanford_cars": (cars, 196),
    "dtd": (textures, 47),
    "imagenette": (imagenette, 10),
    "pathmnist": (lambda top: medmnist(top / "pathmnist.npz"), 9),
    "breastmnist": (lambda top: medmnist(top / "breastmnist.npz", ()), 2),
    "bloodmnist": (lambda top: medmnist(top / "bloodmnist.npz"), 8),
    "oxford_flowers": (flowers, 102),
    "oxford_pets": (pets, 37),
    "fgvc_aircraft": (aircraft, 100),
}


@pytest.mark.parametrize("name", NUM_CLASSES)
def test_every_named_set_counts_its_classes_and_images(name: str, tmp_path) -> None:
    make, num_classes = NUM_CLASSES[name]
    make(tmp_path / "copy")
    message = error_of(name, tmp_path, root=str(tmp_path / "copy"))
    assert message.startswith(f"dataset {name} has {num_classes} classes, ")
    assert f"{tmp_path / 'copy'} has 2 classes, " in message or name == "stanford_cars"
    assert "get all of it from https://" in message
    assert "or dataset.check_counts=false takes what is there" in message


def test_a_listed_image_that_is_missing_is_counted_and_said(tmp_path, capsys) -> None:
    textures(tmp_path)
    (tmp_path / "images/banded/banded_1.jpg").unlink()
    splits = load("dtd", tmp_path, root=str(tmp_path), check_counts=False, split="published")
    assert sizes(splits) == (3, 0, 2)
    assert "1 of 4 listed images are not there" in capsys.readouterr().out
