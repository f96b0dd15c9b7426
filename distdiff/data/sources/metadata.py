"""Reads the labels of images from a metadata file (.csv, .jsonl or .parquet) with columns `file_name` and `label`."""

import math
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from distdiff.data.images import LabelledImages
from distdiff.data.notes import note
from distdiff.data.reading.walk import walk
from distdiff.data.sources.files import from_files
from distdiff.data.sources.left_aside import note_locked, note_others
from distdiff.data.sources.metadata_rows import FILE, read_rows
from distdiff.data.splits.classes import in_order
from distdiff.data.splits.usual_names import SPLIT_OF
from distdiff.errors import UserError
from distdiff.wording import counted, some

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
LABEL, SPLIT = "label", "split"


def find_metadata(folder: Path) -> Path | None:
    """The metadata file of a folder, or None if there is none. A broken link counts, since reading it says what it is."""
    return next(
        (folder / name for name in NAMES if os.path.lexists(folder / name) and not os.path.isdir(folder / name)), None
    )


def read_metadata(
    name: str,
    file: Path,
    shown: str,
    label_column: str | None,
    split_of: Callable[[str], str | None],
    default: str = "train",
) -> dict[str, LabelledImages] | None:
    """The images that a metadata file lists, by split. Messages call the file `shown`.

    The column `split` tells the split of an image. If no row has a value in this column, and every image lies in a
    folder with the name of a split, then this folder tells the split. A row for which neither tells a split belongs to
    the split `default`. `split_of` gives the split for a value of the column, or for a folder's name. Labels are text.
    The classes are in numerical order if all labels are whole numbers. Returns None if the file has no column `label`
    and `label_column` is None. Notes the files beside it that it does not list. Raises `UserError` for a file or row
    that is not valid.
    """
    wanted = label_column or LABEL
    listed: list[tuple[str | None, str, str]] = []
    missing = []
    rows = read_rows(name, file, shown, (FILE, wanted, SPLIT))
    if rows and label_column is None and not any(wanted in row.values for row in rows) and FILE in rows[0].values:
        note(name, f"{shown} has no column {LABEL}, so the folders tell the classes", about="metadata")
        return None
    for row in rows:
        if absent := [column for column in (FILE, wanted) if column not in row.values]:
            has = f"it needs the columns {FILE} and {wanted}; it has {', '.join(map(str, row.values))}"
            known = all(any(column in other.values for other in rows) for column in absent)
            raise UserError(f"{shown}, {row.where}: {has}" if known else f"{shown}: {has}")
        value = row.values.get(SPLIT)
        split = None if value in (None, "") else split_of(str(value))
        if split is None and value not in (None, ""):
            raise UserError(f"{shown}, {row.where}: {SPLIT} {value!r} is not allowed: one of {', '.join(SPLIT_OF)}")
        place = _inside(shown, row.where, row.values[FILE])
        if not _is_there(file.parent / place):
            missing.append(place)
        listed.append((split, place, _label(shown, row.where, row.values[wanted])))
    if missing:
        raise UserError(f"{shown}: {counted(len(missing), 'file')} that it lists cannot be found: {some(missing)}")
    if not listed:
        raise UserError(f"{shown}: it has no rows")
    rows = _by_split(listed, split_of, default)
    _check_unique(shown, rows)
    _note_unlisted(name, file, shown, {place for _, place, _ in listed})
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
    listed: list[tuple[str | None, str, str]], split_of: Callable[[str], str | None], default: str
) -> dict[str, list[tuple[str, str]]]:
    """The pairs (file, label) of each split. `read_metadata` says how the split of a row is found."""
    folders = [split_of(place.partition("/")[0]) if "/" in place else None for _, place, _ in listed]
    in_folders = all(split is None for split, _, _ in listed) and None not in folders
    rows: dict[str, list[tuple[str, str]]] = {}
    for (split, place, label), folder in zip(listed, folders, strict=True):
        rows.setdefault((folder if in_folders else split) or default, []).append((place, label))
    return rows


def _is_there(path: Path) -> bool:
    """Whether a file is at `path`. A file that may not be looked up counts, since reading it says why it is left out."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False


def _note_unlisted(name: str, file: Path, shown: str, listed: set[str]) -> None:
    found = walk(file.parent)
    if unlisted := [image for image in found.images if image not in listed]:
        note(name, f"{counted(len(unlisted), 'image')} left out, not listed in {shown}: {some(unlisted)}", unlisted)
    others = [other for other in found.others if other not in listed and other != file.name]
    note_others(name, f"left out, not listed in {shown}", file.parent, others)
    note_locked(name, str(Path(shown).parent), found.locked)


def _label(shown: str, where: str, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    fits = isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    if not fits or not str(value).strip():
        raise UserError(f"{shown}, {where}: {value!r} is no label: a text or a whole number")
    return str(value)


def _inside(shown: str, where: str, name: Any) -> str:
    place = PurePosixPath(str(name))
    if not isinstance(name, str) or not name or place.is_absolute() or ".." in place.parts or "\0" in name:
        raise UserError(f"{shown}, {where}: {FILE} {name!r} is not allowed: a path below {Path(shown).parent}")
    return place.as_posix()


def _check_unique(shown: str, rows: Mapping[str, list[tuple[str, str]]]) -> None:
    seen: set[str] = set()
    twice = [place for part in rows.values() for place, _ in part if place in seen or seen.add(place)]
    if twice:
        raise UserError(f"{shown}: listed more than once: {some(twice)}")
