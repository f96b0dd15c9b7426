"""Image datasets that the library `datasets` reads as tables, from the hub or from local parquet and arrow files."""

import glob
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
from datasets.features import ClassLabel
from datasets.features import Image as ImageFeature
from datasets.naming import camelcase_to_snakecase
from huggingface_hub import constants
from huggingface_hub.errors import HTTPError, RevisionResolutionError

from distdiff.data.config import TestFraction, ValidationFraction
from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.notes import note
from distdiff.data.reading.decoding import UnreadableImage
from distdiff.data.reading.walk import walk
from distdiff.data.roots import TABLES, exists, nothing_at
from distdiff.data.sources.class_labels import counting_from_one, first_number
from distdiff.data.sources.left_aside import note_locked, note_others
from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION, complete
from distdiff.data.splits.classes import in_order
from distdiff.data.splits.usual_names import TABLE_NAMES
from distdiff.errors import UserError, first_line
from distdiff.hub import hub_or_cache, pinned
from distdiff.links import followed
from distdiff.placeholders import placeholder
from distdiff.texts import json_fault
from distdiff.wording import counted, printable, some

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
FORMATS = {".parquet": "parquet", ".arrow": "arrow"}
INFO, SAVED = "dataset_info.json", ("dataset_dict.json", "state.json")  # as `save_to_disk` writes them
USUAL_LABELS, USUAL_IMAGES = ("label", "labels"), ("image", "img")


@dataclass(frozen=True)
class Wanted:
    """The splits and the columns of a dataset that are to be read.

    The splits have the dataset's own names, and several names are joined by `+`. If a column is None, the only column
    of the right type is read. If no column has that type, a column with a usual name is read.
    """

    train_split: str
    validation_split: str
    test_split: str
    image_column: str | None
    label_column: str | None

    @property
    def splits(self) -> dict[str, str]:
        return {TRAIN: self.train_split, TEST: self.test_split, VALIDATION: self.validation_split}


def load(
    *,
    root: str | None,
    hub_id: str | None,
    hub_config: str | None,
    hub_data_dir: str | None,
    revision: str | None,
    image_column: str | None,
    label_column: str | None,
    train_split: str,
    validation_split: str,
    test_split: str,
    validation_fraction: ValidationFraction,
    test_fraction: TestFraction,
    name: str,
    split_seed: int,
) -> DatasetSplits:
    """The dataset `hub_id` of the hub or, if that is None, the dataset in the files at `root`.

    Missing splits are carved from the training images.
    """
    if hub_id is None and root is None:
        raise UserError(
            "dataset.hub_id and dataset.root have no value: give one, dataset.hub_id=<owner/name> or, of parquet or arrow "
            "files, dataset.root=<file or folder>"
        )
    wanted = Wanted(train_split, validation_split, test_split, image_column, label_column)
    parts = (
        read_hub(name, wanted, hub_id, hub_config, hub_data_dir, revision) if hub_id else read_local(name, wanted, root)
    )
    return complete(parts, validation_fraction, test_fraction, split_seed)


def read_hub(
    name: str, wanted: Wanted, hub_id: str, hub_config: str | None, hub_data_dir: str | None, revision: str | None
) -> dict[str, LabelledImages]:
    """The splits of a dataset on the hub or in the hub's local cache. Raises `UserError` if neither has the dataset."""
    if not HUB_ID.fullmatch(hub_id) or Path(hub_id).exists():  # `datasets` would read a local folder with this name
        raise UserError(
            f"dataset.hub_id={hub_id} is not allowed: owner/name on the Hugging Face hub; local files are read by "
            f"dataset=imagefolder or dataset=parquet with dataset.root=..."
        )
    try:
        with hub_or_cache():
            tables = _load_commit(hub_id, hub_config, hub_data_dir, revision)
    except UserError:
        raise
    except Exception as error:  # the many readers of `datasets` can raise any exception
        raise UserError(f"dataset.hub_id={hub_id}: {_reason(error)}") from None
    return read_tables(name, wanted, f"dataset.hub_id={hub_id}", tables, Path(datasets.config.HF_CACHE_HOME))


def _load_commit(
    hub_id: str, hub_config: str | None, hub_data_dir: str | None, revision: str | None
) -> datasets.DatasetDict:
    """The tables that `datasets` reads at the commit of `revision`.

    Offline, `datasets` takes the most recent folder in its cache, even if the folder belongs to another commit. So the
    folder of the wanted commit first gets a new time stamp. Raises `UserError` if another commit was read nevertheless.
    """
    try:
        wanted = pinned(hub_id, revision, "dataset")
    except (HTTPError, RevisionResolutionError):  # `datasets` may still know the revision; if not, its error says why
        wanted = None
    if wanted is not None and constants.HF_HUB_OFFLINE:
        for folder in prepared_below(hub_id).glob(f"*/*/{wanted.resolved}"):
            with suppress(OSError):  # the cache may belong to another user
                os.utime(folder)
    tables = datasets.load_dataset(hub_id, hub_config, revision=wanted or revision, data_dir=hub_data_dir)
    read = {Path(file["filename"]).parent.name for table in tables.values() for file in table.cache_files}
    if wanted is None and revision is None:
        return tables
    if read - {wanted and wanted.resolved}:
        raise UserError(
            f"dataset.hub_id={hub_id}: the cache has another commit than that of dataset.revision={revision or 'main'}; with "
            "a network, fetch_only=true downloads the right one"
        )
    return tables


def prepared_below(hub_id: str) -> Path:
    """The folder for a hub id in the cache of `datasets`. It holds the folders `<config>/<version>/<commit>`."""
    *owner, name = hub_id.split("/")
    return Path(datasets.config.HF_DATASETS_CACHE, "___".join([*owner, camelcase_to_snakecase(name)]))


def read_local(name: str, wanted: Wanted, root: str) -> dict[str, LabelledImages]:
    """The splits in the parquet or arrow files at `root` (a file or folder).

    The name of a file or of its folder tells the split.
    """
    top = followed(Path(root).expanduser())
    if not exists(top):
        raise UserError(nothing_at(root, TABLES))
    try:
        if any(os.path.lexists(top / name) for name in SAVED):
            tables = datasets.load_from_disk(str(top))
        else:
            tables = _load_files(name, root, top, wanted)
    except UserError:
        raise
    except Exception as error:
        if reason := _broken_file(top):
            raise UserError(reason) from None
        raise UserError(f"dataset.root={root}: cannot read it ({first_line(error)})") from None
    if isinstance(tables, datasets.Dataset):
        tables = {TRAIN: tables}
    return read_tables(name, wanted, f"dataset.root={root}", tables, top if top.is_dir() else top.parent)


def _broken_file(top: Path) -> str | None:
    """Which of a dataset's files cannot be read by itself, and why; None if all can."""
    for path in sorted(path for path in top.rglob("*") if path.suffix in (*FORMATS, ".json")) or [top]:
        if reason := _table_fault(path) if path.suffix in FORMATS else _described_fault(path):
            return f"{path}: {reason}"
    if not (top / "dataset_dict.json").exists() and (top / "state.json").exists():
        return None if (top / INFO).exists() else f"{top / INFO}: there is no such file"
    return None


def _described_fault(path: Path) -> str | None:
    needed = {"state.json": "_data_files", "dataset_dict.json": "splits"}
    return json_fault(path, needed.get(path.name)) if path.name in (*needed, INFO) else None


def _read_arrow(path: Path) -> None:
    """Reads a file of either format of Arrow; raises what pyarrow raises."""
    with pyarrow.memory_map(str(path)) as source:
        try:
            reader = pyarrow.ipc.open_file(source)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            for _ in pyarrow.ipc.open_stream(source):
                pass
        else:
            for number in range(reader.num_record_batches):
                reader.get_batch(number)


def _table_fault(path: Path) -> str | None:
    if (instead := placeholder(path)) is not None:
        return instead
    try:
        if FORMATS[path.suffix] == "parquet":
            pyarrow.parquet.read_table(path)
        else:
            _read_arrow(path)
    except Exception as error:  # a damaged file can make pyarrow raise many types of errors
        return f"it cannot be read ({first_line(error)})"
    return None


def read_tables(
    name: str, wanted: Wanted, source: str, tables: Mapping[str, datasets.Dataset], files_below: Path
) -> dict[str, LabelledImages]:
    """The labelled images by split.

    An image that is given by its path is read only if the path is below `files_below`.
    """
    chosen = _choose_splits(name, source, tables, wanted.splits)
    tables = {split: datasets.concatenate_datasets([tables[key] for key in keys]) for split, keys in chosen.items()}
    image_column = _column(source, tables[TRAIN], "image_column", wanted.image_column, ImageFeature, USUAL_IMAGES)
    label_column = _column(source, tables[TRAIN], "label_column", wanted.label_column, ClassLabel, USUAL_LABELS)
    labels = {split: _labels(source, table, label_column) for split, table in tables.items()}
    _count_from_zero(name, source, label_column, labels)
    parts = {
        split: _part(name, source, table, files_below, image_column, *labels[split]) for split, table in tables.items()
    }
    for split, part in parts.items():
        if not len(part):
            named = "+".join(chosen[split])
            raise UserError(
                f"{source}: no image of its split {named!r} has a label; choose another: dataset.{split}_split=..."
            )
    return parts


def _part(
    name: str,
    source: str,
    table: datasets.Dataset,
    files_below: Path,
    image_column: str,
    class_names: Sequence[str],
    labels: np.ndarray,
) -> LabelledImages:
    labelled = np.flatnonzero(labels >= 0)
    if len(labelled) < len(labels):
        note(name, f"{counted(len(labels) - len(labelled), 'image')} of {source} left out, without a label")
    try:
        cells = table.select_columns([image_column]).cast_column(image_column, ImageFeature(decode=False))
    except Exception as error:
        raise UserError(f"{source}: its column {image_column} holds no images ({first_line(error)})") from None

    def called(index: int) -> str:
        return f"row {index} of {source}"

    def file(index: int) -> BytesIO | Path:
        cell = cells[index][image_column]
        if cell is None:
            raise UnreadableImage(called(index), "there is no image")
        if cell["bytes"] is not None:
            return BytesIO(cell["bytes"])
        path = (files_below / cell["path"]).resolve()
        if not path.is_relative_to(files_below.resolve()):
            raise UnreadableImage(called(index), f"it is the path of a file that lies elsewhere, {cell['path']!r}")
        return path

    return LabelledImages(
        name=name,
        class_names=tuple(map(printable, class_names)),
        labels=labels[labelled],
        keys=tuple(f"{index:06d}" for index in labelled.tolist()),
        read=None,
        indices=labelled,
        file=file,
        called=called,
        listing=source,
    )


def _labels(source: str, table: datasets.Dataset, column: str) -> tuple[Sequence[str], np.ndarray]:
    """The class names, and the labels (n,) int64. An image without a label gets -1."""
    feature, values = table.features[column], table.with_format(None)[column][:]
    if isinstance(feature, ClassLabel):
        return feature.names, np.array([-1 if value is None else value for value in values], dtype=np.int64)
    if any(isinstance(value, bool) or not isinstance(value, (int, str, type(None))) for value in values):
        raise UserError(
            f"{source}: its column {column} holds no labels, which are text or whole numbers, but {feature}"
        )
    names = in_order({str(value) for value in values if value is not None})
    number = {label: position for position, label in enumerate(names)}
    return names, np.array([-1 if value is None else number[str(value)] for value in values], dtype=np.int64)


def _count_from_zero(
    name: str, source: str, column: str, labels: Mapping[str, tuple[Sequence[str], np.ndarray]]
) -> None:
    """Makes labels that count from one count from zero, in place. Raises `UserError` for labels outside of the names."""
    by_names: dict[tuple[str, ...], list[np.ndarray]] = {}
    for names, numbers in labels.values():  # a split by itself may lack the first or the last class
        by_names.setdefault(tuple(names), []).append(numbers)
    for names, numbers in by_names.items():
        try:
            first = first_number(np.concatenate(numbers), len(names))
        except ValueError as error:
            raise UserError(f"{source}: its column {column} has {error}") from None
        if first:
            note(name, f"{source}: {counting_from_one(column, names)}", about="labels")
            for each in numbers:
                each[each >= 0] -= first


def _column(source: str, table: datasets.Dataset, key: str, given: str | None, kind: type, usual: Sequence[str]) -> str:
    """The column `given` or, if that is None, the only column of type `kind`.

    If no column has this type, a column with a name in `usual` is taken.
    """
    columns = table.column_names
    if given is not None:
        if given not in columns:
            raise UserError(f"dataset.{key}={given} is not allowed: {source} has the columns {', '.join(columns)}")
        return given
    fitting = [column for column in columns if isinstance(table.features[column], kind)]
    fitting = fitting or [column for column in usual if column in columns][:1]
    if len(fitting) != 1:
        which = f"several ({', '.join(fitting)})" if fitting else "none"
        raise UserError(
            f"{source}: {which} of its columns may be the {key.removesuffix('_column')}; "
            f"dataset.{key}=... is one of {', '.join(columns)}"
        )
    return fitting[0]


def _note_unused(name: str, source: str, tables: Mapping[str, Any], chosen: Mapping[str, Sequence[str]]) -> None:
    used = {key for keys in chosen.values() for key in keys}
    for key in tables:
        if key not in used:
            number = counted(len(tables[key]), "image")
            note(name, f"split {key} of {source} is not used, {number}; dataset.test_split={key} tests on it")


def _choose_splits(
    name: str, source: str, tables: Mapping[str, Any], wanted: Mapping[str, str]
) -> dict[str, list[str]]:
    """The names of the tables that make up each split.

    `wanted` gives the names for a split, joined by `+`. If no table has one of these names, a table with a usual name
    is taken. No table is in two splits.
    """
    chosen: dict[str, list[str]] = {}
    for split, key in wanted.items():
        used = {name for names in chosen.values() for name in names}
        named = [name for name in key.split("+") if name in tables]
        named = named or [name for name in TABLE_NAMES[split] if name in tables][:1]
        if names := [name for name in named if name not in used]:
            chosen[split] = names
    if TRAIN in chosen:
        _note_unused(name, source, tables, chosen)
        return chosen
    if len(tables) == 1:
        return {TRAIN: list(tables)}
    raise UserError(
        f"{source}: it has no split {wanted[TRAIN]!r}; dataset.train_split=... is one of {', '.join(tables)}"
    )


def _load_files(name: str, root: str, top: Path, wanted: Wanted) -> Mapping[str, datasets.Dataset]:
    files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.suffix in FORMATS)
    if top.is_dir():
        found = walk(top)
        others = [other for other in (*found.images, *found.others) if Path(other).suffix not in FORMATS]
        note_others(name, f"left out of {root}", top, others, "no parquet or arrow file")
        note_locked(name, root, found.locked)
    kinds = {FORMATS.get(path.suffix) for path in files}
    if len(kinds) != 1 or None in kinds:
        found = "both" if len(kinds) > 1 else "neither"
        raise UserError(f"dataset.root={root}: parquet or arrow files are needed, {found} found")
    for path in files:
        if (why := placeholder(path)) is not None:
            raise UserError(f"{path}: {why}")
    words = [word for split, usual in TABLE_NAMES.items() for word in (*wanted.splits[split].split("+"), *usual)]
    by_split: dict[str, list[str]] = {}
    called = {path: _split_of(path.relative_to(top) if path != top else Path(path.name), words) for path in files}
    others = [path.relative_to(top).as_posix() for path, split in called.items() if split is None]
    if others and len(others) < len(files):
        what = f"{counted(len(others), 'file')} of {root} named after no split, read as {TRAIN}: {some(others)}"
        note(name, what, others, about="splits")
    for path in files:
        split = called[path] or TRAIN
        by_split.setdefault(split, []).append(glob.escape(str(path)))  # a file's name may contain [ or *
    return datasets.load_dataset(kinds.pop(), data_files=by_split)


def _split_of(path: Path, words: Sequence[str]) -> str | None:
    """The first of `words` with which the name of a file begins.

    If the name begins with none of them, the name of the file's folder is tried. If that name begins with none of them
    either, the result is None.
    """
    for part in (path.name, path.parent.name):
        for word in words:
            if re.match(rf"{re.escape(word)}(?![A-Za-z0-9])", part):
                return word
    return None


def _reason(error: Exception) -> str:
    """A plain reason why `datasets` could not load a dataset."""
    text = first_line(error)
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        return "the hub has no such dataset or revision, or it needs a login (hf auth login)"
    if isinstance(error, (ConnectionError, OSError)) and "DataFiles" not in type(error).__name__:
        return "the Hugging Face hub cannot be reached and the dataset is not in its cache; local files work too"
    if "scripts are no longer supported" in text:
        return "it is a script, which is not run; dataset.revision=refs/convert/parquet may have its files"
    if text.startswith("Config name is missing") or "BuilderConfig" in text:
        return f"dataset.hub_config=... chooses one of its configurations ({text})"
    return text
