"""Reads a folder or archive of images.

The images lie in class folders, or a metadata table lists them. The class folders may lie in split folders.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distdiff.data.config import TestFraction, ValidationFraction
from distdiff.data.examining import find_range_in
from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.notes import note
from distdiff.data.reading.archive import is_archive, unpacked
from distdiff.data.reading.name_encoding import UTF8, check_encoding
from distdiff.data.reading.options import ReadingOptions
from distdiff.data.reading.value_range import AUTO, ValueRange
from distdiff.data.reading.walk import holds_images, loose_images, subfolders
from distdiff.data.roots import nothing_at
from distdiff.data.sources.files import from_class_folders
from distdiff.data.sources.metadata import find_metadata, read_metadata
from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION, complete
from distdiff.data.splits.classes import agree_on_classes
from distdiff.data.splits.usual_names import FOLDER_NAMES
from distdiff.errors import UserError
from distdiff.links import followed
from distdiff.wording import counted, printable, some

ROOT = "dataset.root"


def load(
    *,
    root: str | None,
    archive_encoding: str | None,
    label_column: str | None,
    train_split: str,
    validation_split: str,
    test_split: str,
    validation_fraction: ValidationFraction,
    test_fraction: TestFraction,
    name: str,
    split_seed: int,
    cache_dir: str,
) -> DatasetSplits:
    """Reads the folder or archive `root`. Missing splits are carved from the training images, class by class."""
    if root is None:
        raise UserError("dataset.root has no value: give one, dataset.root=<folder or archive>")
    top = followed(Path(root).expanduser())
    check_encoding(archive_encoding)
    if is_archive(top):
        top = _unpacked(name, top, cache_dir, archive_encoding)
    elif not top.is_dir():
        raise UserError(nothing_at(root))
    for split, given in ((TRAIN, train_split), (VALIDATION, validation_split), (TEST, test_split)):
        if given not in FOLDER_NAMES[split] and not (top / given).is_dir() and find_metadata(top) is None:
            raise UserError(f"dataset.{split}_split={given}: there is no such folder in {top}")
    names = {usual: split for split, of in FOLDER_NAMES.items() for usual in of}
    names |= {train_split.lower(): TRAIN, validation_split.lower(): VALIDATION, test_split.lower(): TEST}
    return complete(read_parts(name, top, names, label_column), validation_fraction, test_fraction, split_seed)


def _unpacked(name: str, archive: Path, cache_dir: str, encoding: str | None) -> Path:
    """The folder with the archive's content. Says which encoding was assumed for its file names."""
    found = unpacked(archive, cache_dir, encoding)
    if found.encoding is not None:
        why = "they are valid UTF-8" if found.encoding == UTF8 else "the most probable"
        how = "as dataset.archive_encoding says" if encoding else f"{why}; dataset.archive_encoding=... sets another"
        note(
            name,
            f"the file names in {archive.name} do not say their encoding and are read as {found.encoding} ({how}), "
            f"for example {printable(found.example)}",
            about="file names",
        )
    return found.folder


def read_class_folders(root: str, key: str = ROOT) -> LabelledImages:
    """All images of the folder `root`, which has one folder per class. No split is carved.

    Raises `UserError` if there are no images. The error message calls the argument `root` by the name `key`.
    """
    top = followed(Path(root).expanduser())
    if not top.is_dir():
        raise UserError(f"{key}={root}: no such folder")
    classes = _class_folders(top.name, top, key)
    images = agree_on_classes(_read_class_folders(top.name, {TRAIN: top}, classes, key))[TRAIN]
    images = replace(images, options=ReadingOptions(value_range=ValueRange.of(AUTO)))
    find_range_in(images)
    return images


def read_parts(
    name: str, top: Path, split_names: dict[str, str], label_column: str | None = None
) -> dict[str, LabelledImages]:
    """The splits in the folder `top`. The result always has the split `train`.

    `split_names` maps the names of folders, in lower case, to splits.
    """
    table = find_metadata(top)
    parts = read_metadata(name, table, label_column, split_names) if table else None
    if parts is not None:
        if TRAIN not in parts:
            raise UserError(f"{table}: no row is in the split {TRAIN}")
        return parts
    folders = _split_folders(top, split_names)
    if TRAIN not in folders:
        return _read_class_folders(name, {TRAIN: top}, _class_folders(name, top))
    tables = {split: find_metadata(folder) for split, folder in folders.items()}
    if tables[TRAIN] and (parts := _tables(name, tables, split_names, label_column)):
        return parts
    classes = sorted({cls for folder in folders.values() for cls in subfolders(folder)})
    return _read_class_folders(name, folders, classes)


def _read_class_folders(
    name: str, folders: dict[str, Path], classes: Sequence[str], key: str = ROOT
) -> dict[str, LabelledImages]:
    parts = {split: from_class_folders(name, folder, classes) for split, folder in folders.items()}
    if not len(parts[TRAIN]):
        raise UserError(f"{key}={folders[TRAIN]}: no images in its class folders")
    return parts


def _tables(
    name: str, tables: dict[str, Path | None], split_names: dict[str, str], label_column: str | None
) -> dict[str, LabelledImages] | None:
    """Reads the metadata file in each split's folder. Returns None if the file of the training split has no labels."""
    parts = {}
    for split, table in tables.items():
        read = read_metadata(name, table, label_column, dict.fromkeys(split_names, split), split) if table else {}
        if read is None and split == TRAIN:
            return None
        parts |= read or {}
    return parts


def _class_folders(name: str, top: Path, key: str = ROOT) -> Sequence[str]:
    names = subfolders(top)
    if not names:
        raise UserError(
            f"{key}={top}: no class folders in it; each class's images go into a folder of its own, or a "
            f"metadata.csv with the columns file_name and label beside them"
        )
    if len(names) == 1 and not holds_images(top / names[0]) and len(inner := subfolders(top / names[0])) > 1:
        note(name, f"everything is in one class, {names[0]}; if {some(inner)} are classes, use {key}={top / names[0]}")
    if loose := loose_images(top):
        lying = f"{counted(len(loose), 'image')} in {top} itself, in no class folder, left out: {some(loose)}"
        note(name, lying, loose)
    return names


def _split_folders(top: Path, split_names: dict[str, str]) -> dict[str, Path]:
    """The folders of `top` that are splits, by split.

    A folder with the name of a split may be a class of that name instead. It is a split if it holds a metadata file, or
    if it holds folders and no images. But if `top` also has a class folder, one with images and without the name of a
    split, then no folder is a split.
    """
    names = subfolders(top)
    called = {name: split_names[name.lower()] for name in names if name.lower() in split_names}
    found = {split: top / name for name, split in called.items() if _is_split(top / name)}
    if any(holds_images(top / name) for name in names if name not in called):
        return {}
    return found


def _is_split(folder: Path) -> bool:
    return find_metadata(folder) is not None or (bool(subfolders(folder)) and not holds_images(folder))
