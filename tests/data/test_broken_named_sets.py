"""Whatever becomes of a benchmark dataset's own lists and arrays, one line says which file is broken, and why."""

from collections.abc import Callable
from pathlib import Path

import pytest
from damages import Reader, cases, check_said, whole
from layouts import aircraft, cars, cifar100, flowers, medmnist, pets, published_flowers, textures
from sources import load

from distdiff.data.readable import readable


def reads(option: str, root: str = "", **keys: object) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        given = {"root": str(folder / root), "check_counts": False, "validation_fraction": 0} | keys
        splits = load(option, folder.parent, **given)
        readable(splits.train, "training")
        readable(splits.test, "test")

    return read


def numbers(folder: Path) -> None:
    medmnist(folder / "pathmnist.npz")


def cifar(folder: Path) -> None:
    cifar100(folder / "cifar")


CARS, FLOWERS, DTD, PETS = (reads(name) for name in ("stanford_cars", "oxford_flowers", "dtd", "oxford_pets"))
CIFAR = reads("cifar100_subset", "cifar")
LIST = ("cut short", "text", "list", "number", "other table")  # another list, whose images dataset.check_counts misses
READERS = {
    "cars_meta.mat": Reader(cars, "devkit/cars_meta.mat", CARS, shown="cars_meta.mat"),
    "cars_train_annos.mat": Reader(cars, "devkit/cars_train_annos.mat", CARS, shown="cars_train_annos.mat"),
    "imagelabels.mat": Reader(flowers, "imagelabels.mat", FLOWERS),
    "setid.mat": Reader(flowers, "setid.mat", FLOWERS),
    "cat_to_name.json": Reader(published_flowers, "cat_to_name.json", reads("oxford_flowers", split="published")),
    "train1.txt": Reader(textures, "labels/train1.txt", DTD, LIST, "train1.txt"),
    "trainval.txt": Reader(pets, "annotations/trainval.txt", PETS, LIST, "trainval.txt"),
    "variants.txt": Reader(aircraft, "data/variants.txt", reads("fgvc_aircraft"), LIST, "variants.txt"),
    "pathmnist.npz": Reader(numbers, "pathmnist.npz", reads("pathmnist")),
    "pathmnist.npz itself": Reader(numbers, "pathmnist.npz", reads("pathmnist", "pathmnist.npz"), ("folder",)),
    "train.bin": Reader(cifar, "cifar/train.bin", CIFAR, ("cut short", "zeros"), shown="train.bin"),
    "fine_label_names.txt": Reader(cifar, "cifar/fine_label_names.txt", CIFAR, LIST, "fine_label_names.txt"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_whole_named_set_is_read(name: str, tmp_path: Path) -> None:
    whole(READERS[name], tmp_path / "given")
    READERS[name].read(tmp_path / "given")


@pytest.mark.parametrize(("name", "damage"), cases(READERS))
def test_a_broken_file_of_a_named_set_is_one_line_with_its_path_and_the_cause(
    name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_said(READERS[name], damage, tmp_path, capsys)
