"""A folder of class folders, with or without split folders above them."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.reading import EXTENSIONS, read_image
from distdiff.data.splits import carve
from distdiff.errors import UserError


def load(
    name: str,
    root: str,
    train_split: str,
    validation_split: str,
    test_split: str,
    validation_fraction: float,
    test_fraction: float,
    **_: object,
) -> DatasetSplits:
    """Reads `root`; a split without a folder of its own is carved from the training images, stratified."""
    top = Path(root).expanduser()
    if not top.is_dir():
        raise UserError(f"dataset.root={root}: no such folder")
    if not _is_split(top / train_split):
        train = _read(name, top, class_folders(top))
        rest, test = carve(train, test_fraction, "test")
        return DatasetSplits(*carve(rest, validation_fraction, "validation"), test)
    classes = class_folders(top / train_split)
    train = _read(name, top / train_split, classes)
    if _is_split(top / test_split):
        test = _read(name, top / test_split, classes)
    else:
        train, test = carve(train, test_fraction, "test")
    if _is_split(top / validation_split):
        return DatasetSplits(train, _read(name, top / validation_split, classes), test)
    return DatasetSplits(*carve(train, validation_fraction, "validation"), test)


def read_class_folders(root: str) -> LabelledImages:
    """All images of a folder with one folder a class, no split carved; a `UserError` where there are none."""
    top = Path(root).expanduser()
    if not top.is_dir():
        raise UserError(f"dataset.root={root}: no such folder")
    return _read(top.name, top, class_folders(top))


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the class folders, sorted; a `UserError` where there are none."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(
            f"dataset.root={folder}: no class folders in it; each class's images go into a folder of its own"
        )
    return tuple(names)


def image_keys(folder: Path) -> Iterator[str]:
    """Paths of the image files below a class folder, relative to it, sorted; dot files are left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            if _is_image(file):
                yield (Path(parent) / file).relative_to(folder).as_posix()


def _is_split(folder: Path) -> bool:
    """A folder called `train` is a split if it holds folders and no images: it may be a class of that name."""
    if not folder.is_dir():
        return False
    entries = list(os.scandir(folder))
    return any(entry.is_dir() for entry in entries) and not any(_is_image(entry.name) for entry in entries)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def _read(name: str, folder: Path, classes: tuple[str, ...]) -> LabelledImages:
    found = [(label, key) for label, cls in enumerate(classes) for key in image_keys(folder / cls)]
    if not found:
        raise UserError(f"dataset.root={folder}: no images in its class folders")
    paths = [folder / classes[label] / key for label, key in found]

    def read(index: int) -> Image.Image:
        return read_image(paths[index])

    return LabelledImages(
        name=name,
        class_names=classes,
        labels=np.array([label for label, _ in found], dtype=np.int64),
        keys=tuple(key for _, key in found),
        read=read,
        indices=np.arange(len(found)),
    )
