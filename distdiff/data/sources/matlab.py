"""Datasets whose labels are in .mat files: Stanford Cars and Oxford Flowers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from distdiff.data.reading.walk import subfolders
from distdiff.data.sources.files import from_class_folders
from distdiff.data.sources.named import (
    PUBLISHED,
    LayoutError,
    NamedSet,
    Parts,
    find,
    inside,
    lines,
    listed,
    refuse_placeholder,
)
from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION
from distdiff.errors import first_line
from distdiff.texts import UnreadableFile, read_json
from distdiff.wording import printable

FLOWER_NAMES = Path(__file__).parents[2] / "assets" / "class_names" / "oxford_flowers.txt"


def year_first(name: str) -> str:
    """A car's name with the year first, as the published code writes it.

    >>> year_first("Acura RL Sedan 2012"), year_first("2012 Acura RL Sedan")
    ('2012 Acura RL Sedan', '2012 Acura RL Sedan')
    """
    model, _, year = name.rpartition(" ")
    return f"{year} {model}" if model and year.isdecimal() and len(year) == 4 else name


class StanfordCars(NamedSet):
    """Stanford Cars (Krause et al., 2013) in `cars_train/`, `cars_test/` and `devkit/`.

    The test labels are in a file that was published later.
    """

    published_layout = False

    def read(self, top: Path, name: str, split: str) -> Parts:
        train = _matrix(
            find(top, "devkit/cars_train_annos.mat", "car_devkit/devkit/cars_train_annos.mat"), "annotations"
        )
        test_file = find(top, "cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat")
        meta = find(top, "devkit/cars_meta.mat", "car_devkit/devkit/cars_meta.mat")
        class_names = [str(car) for car in _matrix(meta, "class_names")]
        parts = {}
        for part, rows, places in (
            (TRAIN, train, ("cars_train", "cars_train/cars_train")),
            (TEST, _matrix(test_file, "annotations"), ("cars_test", "cars_test/cars_test")),
        ):
            if "class" not in (rows.dtype.names or ()) or "fname" not in rows.dtype.names:
                raise LayoutError(f"the annotations of its {part} images have no labels")
            labels = [_number(row["class"], len(class_names)) for row in rows]
            folder = find(top, *(places[::-1] if (top / places[1]).is_dir() else places))
            files = [inside(folder, str(row["fname"])) for row in rows]
            parts[part] = listed(name, class_names, zip(files, labels, strict=True))
        return parts

    def rename(self, class_name: str) -> str:
        return year_first(class_name)


class OxfordFlowers(NamedSet):
    """Oxford Flowers (Nilsback & Zisserman, 2008) in `jpg/`, `imagelabels.mat` and `setid.mat`.

    The published split has the folders `train/` and `valid/` instead, with one folder per class number.
    """

    def read(self, top: Path, name: str, split: str) -> Parts:
        if split == PUBLISHED:
            return _numbered_folders(find(top, "train", "dataset/train").parent, top, name)
        class_names = lines(FLOWER_NAMES)
        labels = _matrix(find(top, "imagelabels.mat"), "labels")
        sets, folder = find(top, "setid.mat"), find(top, "jpg", "102flowers/jpg")
        parts = {}
        for part, key in ((TRAIN, "trnid"), (VALIDATION, "valid"), (TEST, "tstid")):
            numbers = [_number(number, len(labels)) for number in _matrix(sets, key)]
            files = [
                (folder / f"image_{number + 1:05d}.jpg", _number(labels[number], len(class_names)))
                for number in numbers
            ]
            parts[part] = listed(name, class_names, files)
        return parts


def _numbered_folders(folder: Path, top: Path, name: str) -> Parts:
    """Reads the class folders `1` to `102`. The class names are in `cat_to_name.json`.

    The folder `valid` is the test split.
    """
    file = find(top, "cat_to_name.json", "dataset/cat_to_name.json")
    try:
        words = {str(number): str(word).strip() for number, word in read_json(file).items()}
    except UnreadableFile as error:
        raise LayoutError(f"its cat_to_name.json is not a table of numbers and names ({error.reason})") from None
    numbers = sorted(subfolders(folder / "train"), key=lambda text: (len(text), text))
    if unknown := [number for number in numbers if number not in words]:
        raise LayoutError(f"its cat_to_name.json has no class {unknown[0]!r}")
    parts = {TRAIN: folder / "train", TEST: find(folder, "valid")}
    read = {part: from_class_folders(name, place, numbers) for part, place in parts.items()}
    class_names = tuple(printable(words[number]) for number in numbers)
    return {part: replace(images, class_names=class_names) for part, images in read.items()}


def _matrix(file: Path, key: str) -> np.ndarray:
    refuse_placeholder(file)
    try:
        return np.atleast_1d(loadmat(file, squeeze_me=True)[key])
    except KeyError:
        raise LayoutError(f"its {file.name} has no {key}") from None
    except Exception as error:  # a damaged file can make scipy raise any exception
        raise LayoutError(f"its {file.name} cannot be read ({first_line(error)})") from None


def _number(value: Any, count: int) -> int:
    """Turns a number from 1 to `count` into an index from 0 to `count - 1`.

    Raises `LayoutError` for any other number.
    """
    try:
        number = int(value) - 1
    except (TypeError, ValueError):
        raise LayoutError(f"one of its numbers is {value!r}, not a number from 1 to {count}") from None
    if not 0 <= number < count:
        raise LayoutError(f"one of its numbers is {number + 1}, not from 1 to {count}")
    return number
