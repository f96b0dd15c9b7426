"""Reads finished expanded datasets: the requested metadata rows, and their images."""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute

from distdiff.data.images import LabelledImages
from distdiff.data.reading.decoding import READING
from distdiff.data.soft_labels import SoftLabel, SoftLabels, soft_label
from distdiff.errors import UserError
from distdiff.links import followed
from distdiff.store.columns import METADATA, SOFT_LABELS, SOFT_WEIGHTS, class_names_of
from distdiff.store.contents import Contents
from distdiff.store.directory import MANIFEST, ExpandedDirectory
from distdiff.store.encoding import extension_of
from distdiff.store.filtering import RowFilter, say_kept
from distdiff.store.journal import Row
from distdiff.store.tables import read_table
from distdiff.wording import some

NEEDED = (
    "file_name",
    "label",
    "class_name",
    "source",
    "copy",
)  # columns of every table of metadata, also of older ones


@dataclass(frozen=True)
class Selection:
    """Images of one or several expanded datasets.

    Image i has the metadata `rows[i]`, and `read(i)` gives the bytes of its file. `keys[i]` identifies image i within
    its class. `places[i]` is the index of the image's dataset in `directories`.
    """

    directories: tuple[ExpandedDirectory, ...]
    class_names: tuple[str, ...]
    rows: list[Row]
    keys: tuple[str, ...]
    places: list[int]
    read: Callable[[int], bytes]

    @property
    def formats(self) -> set[str]:
        """The file extensions of the images."""
        return {extension_of(row["file_name"]) for row in self.rows}

    def called(self, index: int) -> str:
        """What messages call image i."""
        return f"{self.directories[self.places[index]].path}/{self.rows[index]['file_name']}"

    def images(self, name: str, class_names: tuple[str, ...] | None = None, **fields: Any) -> LabelledImages:
        """The images as `LabelledImages`, whose other fields are given by `fields`.

        Labels are indices into `class_names` or, if `class_names` is None, into the selection's own class names.
        """
        names = self.class_names if class_names is None else class_names
        number = {class_name: label for label, class_name in enumerate(names)}
        numbers = [number.get(class_name, -1) for class_name in self.class_names]
        shares = [_soft_label(row, number[row["class_name"]], numbers) for row in self.rows]
        return LabelledImages(
            name=name,
            class_names=names,
            labels=np.array([number[row["class_name"]] for row in self.rows], dtype=np.int64),
            keys=self.keys,
            read=None,
            indices=np.arange(len(self.rows)),
            soft=SoftLabels.of(shares) if any(len(label) > 1 for label in shares) else None,
            file=lambda index: io.BytesIO(self.read(index)),
            called=self.called,
            sources=tuple(tuple(sources_of(row)) for row in self.rows),
            **fields,
        )


def finished_directory(path: Path | str) -> ExpandedDirectory:
    """The expanded dataset at `path`. Raises `UserError` for a directory that is not a complete expanded dataset."""
    directory = ExpandedDirectory(followed(Path(path).expanduser()))
    manifest = directory.manifest()
    if manifest is None:
        reason = f"it has no {MANIFEST}" if directory.path.is_dir() else "there is no such folder"
        raise UserError(f"{path} is no expanded dataset: {reason}")
    if not manifest["complete"]:
        raise UserError(f"{path} is not complete: repeat the command that made it, to make the rest")
    return directory


def finished_directories(key: str, roots: object) -> tuple[ExpandedDirectory, ...]:
    """The expanded datasets at `roots`, which is a directory or a list of directories.

    `key` is the configuration key that gave `roots`. Raises `UserError` if a directory is not a complete expanded
    dataset, or if a directory is listed twice.
    """
    several = isinstance(roots, Sequence) and not isinstance(roots, str)
    directories = tuple(finished_directory(str(root)) for root in (roots if several else [roots]))
    if len({directory.path.resolve() for directory in directories}) < len(directories):
        raise UserError(f"{key}={roots} is not allowed: a directory is in it twice")
    return directories


def select(
    directories: Sequence[ExpandedDirectory], where: RowFilter | None = None, contents: Contents | None = None
) -> Selection:
    """Selects, from finished directories, the images that satisfy the condition `where` and belong to `contents`.

    If `where` or `contents` is None, it excludes no image. Classes are in the order of the first directory. Raises
    `UserError` if the directories' classes differ, or if `where` is true for no image.
    """
    class_names = _class_names(directories)
    tables = [_metadata(directory) for directory in directories]
    if where is not None:
        total = sum(map(len, tables))
        tables = [where.apply(table) for table in tables]
        say_kept(sum(map(len, tables)), total, where, [directory.path.name for directory in directories])
    rows, places, readers = [], [], []
    for place, (directory, table) in enumerate(zip(directories, tables, strict=True)):
        own = table.to_pylist() if contents is None else planned(table.to_pylist(), contents)
        numbers = [class_names.index(name) for name in class_names_of(directory.path)]
        own = [_relabelled(row, numbers) for row in own]
        read = directory.storage.reader(own)
        rows += own
        places += [place] * len(own)
        readers += [(read, position) for position in range(len(own))]

    def read_file(index: int) -> bytes:
        read, position = readers[index]
        return read(position)

    keys = tuple(row["file_name"] for row in rows)
    return Selection(tuple(directories), class_names, rows, keys, places, read_file)


def read_expanded(
    path: Path | str,
    real: LabelledImages | None = None,
    contents: Contents | None = None,
    where: RowFilter | None = None,
) -> LabelledImages:
    """The images of one finished expanded dataset, chosen by `contents` and `where` as in `select`.

    `real` holds the real images that the expanded images will be combined or compared with. If `real` is given, labels
    are indices into `real.class_names`. Raises `UserError` if a source is not one of the real images, or if the
    directory is not a complete expanded dataset.
    """
    directory = finished_directory(path)
    selection = select([directory], where, contents)
    name, identity = directory.path.name, _identity(directory, selection.rows)
    if real is None:
        return selection.images(name, identity=identity)
    _check_sources(directory.path, selection.rows, real)
    return selection.images(name, real.class_names, options=real.options, identity=identity)


def _soft_label(row: Row, label: int, numbers: Sequence[int]) -> SoftLabel:
    """The soft label in a metadata row, with class i of the row's dataset renumbered as `numbers[i]`.

    A row that an older version wrote has no soft label. In that case, `label` gets the weight 1.
    """
    if not row.get("soft_labels"):
        return ((label, 1.0),)
    return soft_label(dict(zip([numbers[i] for i in row["soft_labels"]], row["soft_weights"], strict=True)))


def sources_of(row: Row) -> list[str]:
    """All real images that an image was made from, each as `class/key`. Rows of older versions name only one source."""
    if row.get("sources") is not None:
        return row["sources"]
    return [f"{row['class_name']}/{row['source']}"]


def _relabelled(row: Row, numbers: Sequence[int]) -> Row:
    """A metadata row in which class i of the soft label is renumbered as `numbers[i]`."""
    if not row.get("soft_labels"):
        return row
    return row | {"soft_labels": [numbers[label] for label in row["soft_labels"]]}


def planned(rows: Sequence[Row], contents: Contents) -> list[Row]:
    """The rows whose images are in `contents`.

    Rows of other images, which a directory has if it was made with a larger `expansion.factor`, are left out.
    """
    names = set(contents.file_names())
    return [row for row in rows if row["file_name"] in names]


def _class_names(directories: Sequence[ExpandedDirectory]) -> tuple[str, ...]:
    """The class names in the order of the first directory.

    Raises `UserError` if another directory has other classes.
    """
    first, *others = (class_names_of(directory.path) for directory in directories)
    for directory, names in zip(directories[1:], others, strict=True):
        if differing := sorted({*first} ^ {*names}):
            raise UserError(
                f"{directory.path} and {directories[0].path} have different classes, so they are not merged: "
                f"only one of them has {some(differing)}"
            )
    return first


def _metadata(directory: ExpandedDirectory) -> pyarrow.Table:
    table = read_table(directory.path / METADATA, NEEDED)
    known = set(class_names_of(directory.path))
    for name in pyarrow.compute.unique(table["class_name"]).to_pylist():
        if name not in known:
            raise UserError(f"{directory.path}: its metadata name a class that it does not have, {name!r}")
    if SOFT_LABELS in table.column_names:
        _check_soft_labels(directory.path, table, len(known))
    return table


def _check_soft_labels(root: Path, table: pyarrow.Table, num_classes: int) -> None:
    """Raises `UserError` for soft labels with unknown classes, weights that are not positive, or a missing class or weight."""
    compute, labels, weights = pyarrow.compute, table[SOFT_LABELS], table[SOFT_WEIGHTS]
    same = compute.all(compute.equal(compute.list_value_length(labels), compute.list_value_length(weights))).as_py()
    classes, shares = (compute.list_flatten(column) for column in (labels, weights))
    limits = compute.min_max(classes).as_py()
    inside = limits["min"] is None or (limits["min"] >= 0 and limits["max"] < num_classes)
    if same is False or not inside or compute.any(compute.less_equal(shares, 0.0)).as_py():
        raise UserError(
            f"{root}: its metadata hold invalid soft labels: allowed are classes from 0 to {num_classes - 1}, with a "
            "positive weight each"
        )


def _identity(directory: ExpandedDirectory, rows: Sequence[Row]) -> str:
    """A name made from all that the images of `rows` depend on.

    The name depends on how the images were made, on the images' file names, and on how JPEG files are read.
    """
    manifest, encoding = directory.manifest(), directory.storage.options.encoding
    names = hashlib.sha256("\n".join(row["file_name"] for row in rows).encode()).hexdigest()[:16]
    reading = f"reading{READING}" if encoding.image_format == "jpeg" else ""  # only JPEGs may be decoded smaller
    return "-".join(filter(None, (manifest["fingerprint"], encoding.words, names, reading)))


def _check_sources(root: Path, rows: Sequence[Row], real: LabelledImages) -> None:
    """Raises `UserError` if a class or a source is not in `real`. Such a source may be, for example, a test image."""
    names = class_names_of(root)
    named = {row["class_name"] for row in rows} | {names[i] for row in rows for i in row.get(SOFT_LABELS) or ()}
    unknown = sorted(named - set(real.class_names))
    if unknown:
        raise UserError(f"{root} has classes that dataset {real.name} lacks: {', '.join(unknown[:5])}")
    sources = {source for row in rows for source in sources_of(row)}
    if strange := sorted(sources.difference(real.names)):
        raise UserError(
            f"{root} was not expanded from the training images of dataset {real.name}: {len(strange):,} of its "
            f"{len(sources):,} sources are not among them, such as {strange[0]}; give the dataset keys that it "
            "was expanded with"
        )
