"""Reads a folder or archive of images.

The images lie in class folders, or a metadata table lists them. The class folders may lie in split folders.
"""

import os
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
from distdiff.data.reading.walk import files_in, holds_images, is_locked, subfolders, walk
from distdiff.data.roots import no_such_kind
from distdiff.data.sources.files import from_class_folders
from distdiff.data.sources.left_aside import is_packed, note_files_in, note_others
from distdiff.data.sources.metadata import find_metadata, read_metadata
from distdiff.data.sources.split_folders import find_split_folders
from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION, complete
from distdiff.data.splits.classes import agree_on_classes
from distdiff.data.splits.usual_names import USUAL_NAMES, SplitNames
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
    elif not os.path.isdir(top):
        raise UserError(no_such_kind(root))
    for split, given in ((TRAIN, train_split), (VALIDATION, validation_split), (TEST, test_split)):
        if given not in USUAL_NAMES[split][:3] and not os.path.isdir(top / given) and find_metadata(top) is None:
            raise UserError(f"dataset.{split}_split={given}: there is no such folder in {root}")
    names = SplitNames({train_split.lower(): TRAIN, validation_split.lower(): VALIDATION, test_split.lower(): TEST})
    parts = read_parts(name, top, str(root), names, label_column)
    return complete(parts, validation_fraction, test_fraction, split_seed)


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
    for place in found.folder.parents if found.folder != found.content else ():
        note_others(name, f"left out of {archive}", place, files_in(place)[1])  # beside the only folder in it
        if place == found.content:
            break
    return found.folder


def read_class_folders(root: str, key: str = ROOT) -> LabelledImages:
    """All images of the folder `root`, which has one folder per class. No split is carved.

    Raises `UserError` if there are no images. The error message calls the argument `root` by the name `key`.
    """
    top = followed(Path(root).expanduser())
    if not top.is_dir():
        raise UserError(f"{key}={root}: no such folder")
    classes = _class_folders(top.name, top, str(top), key)
    images = agree_on_classes(_read_class_folders(top.name, {TRAIN: top}, {TRAIN: str(top)}, classes, key))[TRAIN]
    images = replace(images, options=ReadingOptions(value_range=ValueRange.of(AUTO)))
    find_range_in(images)
    return images


def read_parts(
    name: str, top: Path, shown: str, names: SplitNames, label_column: str | None = None
) -> dict[str, LabelledImages]:
    """The splits in the folder `top`. The result always has the split `train`. Messages call the folder `shown`."""
    if is_locked(top):
        raise UserError(f"{ROOT}={shown}: it may not be read (permission denied)")
    table = find_metadata(top)
    parts = read_metadata(name, table, f"{shown}/{table.name}", label_column, names.of) if table else None
    if parts is not None:
        if TRAIN not in parts:
            raise UserError(f"{shown}/{table.name}: no row is in the split {TRAIN}")
        return parts
    folders = find_split_folders(name, top, shown, names)
    if not folders:
        return _read_class_folders(name, {TRAIN: top}, {TRAIN: shown}, _class_folders(name, top, shown))
    shown_as = {split: f"{shown}/{folder.relative_to(top).as_posix()}" for split, folder in folders.items()}
    tables = {split: find_metadata(folder) for split, folder in folders.items()}
    if tables[TRAIN] and (parts := _tables(name, tables, folders, shown_as, label_column)):
        return parts
    for split, table in tables.items():
        if table is not None:  # its folder was not looked through for other files yet
            note_files_in(name, folders[split], shown_as[split], table)
    classes = sorted({cls for folder in folders.values() for cls in subfolders(folder)})
    return _read_class_folders(name, folders, shown_as, classes)


def _read_class_folders(
    name: str, folders: dict[str, Path], shown: dict[str, str], classes: Sequence[str], key: str = ROOT
) -> dict[str, LabelledImages]:
    parts = {split: from_class_folders(name, folder, classes, shown[split]) for split, folder in folders.items()}
    if not len(parts[TRAIN]):
        raise UserError(f"{key}={shown[TRAIN]}: no images in its class folders")
    return parts


def _tables(
    name: str,
    tables: dict[str, Path | None],
    folders: dict[str, Path],
    shown: dict[str, str],
    label_column: str | None,
) -> dict[str, LabelledImages] | None:
    """Reads the metadata file in each split's folder. Returns None if the file of the training split has no labels."""
    parts = {}
    for split, table in sorted(tables.items(), key=lambda item: item[0] != TRAIN):
        read = None
        if table is not None:
            file = f"{shown[split]}/{table.name}"
            read = read_metadata(name, table, file, label_column, lambda _, split=split: split, split)
        if read is None and split == TRAIN:
            return None
        if read is None:
            number = counted(len(walk(folders[split]).images), "image")
            note(
                name,
                f"{shown[split]} is not used, {number}: {TRAIN} has a metadata file with labels, and this folder has none",
            )
        parts |= read or {}
    return parts


def _class_folders(name: str, top: Path, shown: str, key: str = ROOT) -> Sequence[str]:
    names = subfolders(top)
    if not names:
        raise UserError(f"{key}={shown}: no class folders in it; {_instead(top)}")
    if len(names) == 1 and len(inner := subfolders(top / names[0])) > 1:
        place = top / names[0]
        if not holds_images(place):
            note(name, f"everything is in one class, {names[0]}; if {some(inner)} are classes, use {key}={place}")
        else:
            note(name, f"everything is in one class, {names[0]}, with the images of {some(inner)}")
    note_files_in(name, top, shown, find_metadata(top))
    return names


def _instead(top: Path) -> str:
    """What to do about a folder `top` without class folders."""
    _, others = files_in(top)
    if packed := [other for other in others if is_packed(other)]:
        return (
            f"it holds {counted(len(packed), 'archive')} ({some(packed)}), and an archive in a folder or an archive is not "
            f"unpacked: unpack them into one folder each, and give the folder around them"
        )
    return (
        "each class's images go into a folder of its own, or a metadata.csv with the columns file_name and label beside "
        "them"
    )
