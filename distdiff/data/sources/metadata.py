"""Reads the labels of images from a metadata file (.csv, .jsonl or .parquet) with columns `file_name` and `label`."""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet
from pyarrow import ArrowException

from distdiff.data.images import LabelledImages
from distdiff.data.sources.files import from_files
from distdiff.data.splits.classes import in_order
from distdiff.errors import UserError, first_line
from distdiff.wording import counted, some

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE, LABEL, SPLIT = "file_name", "label", "split"


def find_metadata(folder: Path) -> Path | None:
    """The metadata file of a folder, or None if there is none."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def read_metadata(
    name: str, file: Path, label_column: str | None, splits: Mapping[str, str], default: str = "train"
) -> dict[str, LabelledImages] | None:
    """The images that a metadata file lists, by split.

    The column `split` tells the split of an image. If no row has a value in this column, and every image lies in a
    folder with the name of a split, then this folder tells the split. A row for which neither tells a split belongs to
    the split `default`. `splits` maps a value of the column, or a folder's name, to `train`, `validation` or `test`.
    Labels are text. The classes are in numerical order if all labels are whole numbers. Returns None if the file has no
    column `label` and `label_column` is None. Raises `UserError` for a file or row that is not valid. The message names
    the file.
    """
    wanted = label_column or LABEL
    listed: list[tuple[str | None, str, str]] = []
    missing = []
    for number, row in enumerate(_rows(file), start=1):
        if wanted not in row or FILE not in row:
            if label_column is None and FILE in row:
                return None
            raise UserError(f"{file}: it needs the columns {FILE} and {wanted}; it has {', '.join(map(str, row))}")
        split = None if row.get(SPLIT) in (None, "") else str(row[SPLIT]).lower()
        if split is not None and split not in splits:
            raise UserError(f"{file}, row {number}: {SPLIT} {split!r} is not allowed: one of {', '.join(splits)}")
        place = _inside(file, number, row[FILE])
        if not (file.parent / place).is_file():
            missing.append(place)
        listed.append((split, place, _label(file, number, row[wanted])))
    rows = _by_split(listed, splits, default)
    if missing:
        raise UserError(f"{file}: {counted(len(missing), 'file')} that it lists cannot be found: {some(missing)}")
    if not rows:
        raise UserError(f"{file}: it has no rows")
    _check_unique(file, rows)
    names = in_order({label for part in rows.values() for _, label in part})
    number_of = {label: number for number, label in enumerate(names)}
    return {
        split: from_files(
            name,
            names,
            [number_of[label] for _, label in part],
            [place for place, _ in part],
            [file.parent / place for place, _ in part],
        )
        for split, part in rows.items()
    }


def _by_split(
    listed: list[tuple[str | None, str, str]], splits: Mapping[str, str], default: str
) -> dict[str, list[tuple[str, str]]]:
    """The pairs (file, label) of each split. `read_metadata` says how the split of a row is found."""
    folders = [place.partition("/")[0].lower() if "/" in place else "" for _, place, _ in listed]
    in_folders = all(split is None for split, _, _ in listed) and all(folder in splits for folder in folders)
    rows: dict[str, list[tuple[str, str]]] = {}
    for (split, place, label), folder in zip(listed, folders, strict=True):
        value = folder if in_folders else split
        rows.setdefault(default if value is None else splits[value], []).append((place, label))
    return rows


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    try:
        if file.suffix == ".csv":
            with open(file, encoding="utf-8-sig", newline="") as lines:
                yield from csv.DictReader(lines)
        elif file.suffix == ".jsonl":
            with open(file, encoding="utf-8") as lines:
                yield from (json.loads(line) for line in lines if line.strip())
        else:
            yield from _parquet_rows(file)
    except (OSError, ValueError, csv.Error, ArrowException) as error:
        raise UserError(f"{file}: cannot read it ({first_line(error)})") from None


def _parquet_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file.

    Label numbers are replaced by class names if `datasets` has written the names into the file.
    """
    table = pyarrow.parquet.read_table(file)
    described = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    names = {key: value["names"] for key, value in features.items() if value.get("_type") == "ClassLabel"}
    rows = table.to_pylist()
    for row in rows:
        row.update({key: of[row[key]] for key, of in names.items() if row.get(key) is not None})
    return rows


def _label(file: Path, number: int, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    fits = isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    if not fits or not str(value).strip():
        raise UserError(f"{file}, row {number}: {value!r} is no label: a text or a whole number")
    return str(value)


def _inside(file: Path, number: int, name: Any) -> str:
    place = PurePosixPath(str(name))
    if not isinstance(name, str) or not name or place.is_absolute() or ".." in place.parts or "\0" in name:
        raise UserError(f"{file}, row {number}: {FILE} {name!r} is not allowed: a path below {file.parent}")
    return place.as_posix()


def _check_unique(file: Path, rows: Mapping[str, list[tuple[str, str]]]) -> None:
    seen: set[str] = set()
    twice = [place for part in rows.values() for place, _ in part if place in seen or seen.add(place)]
    if twice:
        raise UserError(f"{file}: listed more than once: {some(twice)}")
