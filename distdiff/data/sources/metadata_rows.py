"""Reads the rows of a metadata file: .csv as people and spreadsheets write it, .jsonl or .parquet."""

import codecs
import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from pyarrow import ArrowException

from distdiff.data.notes import note
from distdiff.data.sources.class_labels import counting_from_one, first_number
from distdiff.errors import UserError, first_line
from distdiff.placeholders import placeholder
from distdiff.wording import counted

FILE = "file_name"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Row:
    """A row of a file. `where` names its number in messages; in a .csv file, also its line."""

    where: str
    values: dict[str, Any]


def read_rows(name: str, file: Path, shown: str, needed: Sequence[str]) -> list[Row]:
    """The rows of a metadata file, which messages call `shown`. `needed` are the columns that are used, if there.

    Notes what was taken as meant. Raises `UserError` for a file that cannot be read, and for a row that does not fit.
    """
    try:
        if (instead := placeholder(file)) is not None:
            raise UserError(f"{shown}: {instead}")
        if file.suffix == ".csv":
            return _csv_rows(name, file.parent, shown, file.read_bytes(), needed)
        if file.suffix == ".jsonl":
            return list(_json_rows(shown, file.read_text(encoding="utf-8-sig")))
        return _parquet_rows(name, file, shown)
    except OSError as error:
        raise UserError(f"{shown}: cannot read it ({error.strerror or first_line(error)})") from None
    except UnicodeError as error:
        raise UserError(f"{shown}: cannot read it ({first_line(error)}); save it as UTF-8") from None
    except (ValueError, csv.Error, ArrowException) as error:
        raise UserError(f"{shown}: cannot read it ({first_line(error)})") from None


def _json_rows(shown: str, text: str) -> Iterator[Row]:
    for number, line in enumerate((line for line in text.split("\n") if line.strip()), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{shown}, row {number}: it is no JSON ({first_line(error)})") from None
        if not isinstance(row, dict):
            raise UserError(f"{shown}, row {number}: it is no JSON object, {{column: value}}")
        yield Row(f"row {number}", row)


def _csv_rows(name: str, folder: Path, shown: str, content: bytes, needed: Sequence[str]) -> list[Row]:
    """The rows of a .csv file.

    A byte-order mark, blank rows, empty fields at the end of rows, spaces around fields, and semicolons or tabs between
    them are taken as what spreadsheets and hands add without meaning it.
    """
    marked = content.startswith((codecs.BOM_UTF8, *UTF16))
    text = content.decode("utf-16" if content.startswith(UTF16) else "utf-8-sig")
    taken = ["without its byte-order mark"] if marked else []
    first = next((line for line in text.splitlines() if line.strip()), "")
    between = next((mark for mark in (",", ";", "\t") if mark in first), ",")
    if between != ",":
        taken.append(f"with {'semicolons' if between == ';' else 'tabs'} between the fields")
    rows, tidied = _fields(shown, text, between, needed, lambda place: os.path.isfile(folder / place))
    if taken := [*taken, *tidied]:
        note(name, f"{shown} is read {', '.join(taken)}", about="metadata")
    return rows


def _check_quotes(shown: str, text: str, between: str) -> None:
    """Raises `UserError` for a quote that is never closed, since it makes all later rows a part of its field."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
    start = 1
    try:
        for _ in lines:
            start = lines.line_num + 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise UserError(f"{shown}, line {start}: a quotation mark in it is never closed") from None


def _fields(
    shown: str, text: str, between: str, needed: Sequence[str], exists: Callable[[str], bool]
) -> tuple[list[Row], list[str]]:
    """The rows, and what was left out of them. Raises `UserError` for a row with too many or too few fields.

    The first two of the `needed` columns are the file's name and its label. The spaces around a file name stay if a file
    with this name `exists`. Only spaces in the `needed` columns are said.
    """
    lines = _lines(text, between)
    # `a.png, "one, two"` has a quoted field only if the space before it does not count.
    spaced_quotes = sum(
        field.lstrip().startswith('"') for _, fields in lines for field in fields if field[:1].isspace()
    )
    if spaced_quotes:
        lines = _lines(text, between, skipinitialspace=True)
    filled = [(line, fields) for line, fields in lines if any(field.strip() for field in fields)]
    blank, ended, spaced, rows = len(lines) - len(filled), 0, 0, []
    columns = [field.strip() for field in filled[0][1]] if filled else []
    while columns and not columns[-1]:
        columns.pop()
    checked = {*needed[:2]} <= {*columns}  # no row matters of a table without labels, such as one of captions
    if checked:
        _check_quotes(shown, text, between)
    if twice := [column for column in needed if columns.count(column) > 1]:
        raise UserError(f"{shown}: it has several columns {twice[0]!r}; each needs a name of its own")
    for number, (line, fields) in enumerate(filled):
        more = fields[len(columns) :]
        if checked and (len(fields) < len(columns) or any(field.strip() for field in more)):
            what = f"{counted(len(fields), 'field')}, but there are {counted(len(columns), 'column')}"
            quoted = f"; a text with {between!r} in it needs quotation marks around it" if more else ""
            where = f"row {number} (line {line})"
            raise UserError(f"{shown}, {where}: it has {what} ({', '.join(columns)}){quoted}")
        ended += bool(more)
        values = {}
        for column, field in zip(columns, fields, strict=False):
            values[column] = field if column == FILE and exists(field) else field.strip()
            spaced += column in needed and values[column] != field
        if number:
            rows.append(Row(f"row {number} (line {line})", values))
    said = [f"without {counted(blank, 'blank row')}"] if blank else []
    said += [f"without empty fields at the end of {counted(ended, 'row')}"] if ended else []
    said += [f"without spaces around {counted(spaced, 'field')}"] if spaced else []
    said += [f"without spaces before {counted(spaced_quotes, 'quoted field')}"] if spaced_quotes else []
    return rows, said if checked else []


def _lines(text: str, between: str, **options: bool) -> list[tuple[int, list[str]]]:
    """The fields of each row, with the number of the row's last line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, **options)
    return [(reader.line_num, fields) for fields in reader]


def _parquet_rows(name: str, file: Path, shown: str) -> list[Row]:
    """The rows of a parquet file.

    Label numbers are replaced by class names if `datasets` has written the names into the file.
    """
    table = pyarrow.parquet.read_table(file)
    described = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    names = {key: value["names"] for key, value in features.items() if value.get("_type") == "ClassLabel"}
    rows = table.to_pylist()
    for key, of in names.items():
        labels = np.array([-1 if row.get(key) is None else row[key] for row in rows], dtype=np.int64)
        try:
            first = first_number(labels, len(of))
        except ValueError as error:
            raise UserError(f"{shown}: its column {key} has {error}") from None
        if first:
            note(name, f"{shown}: {counting_from_one(key, of)}", about="labels")
        for row, label in zip(rows, labels.tolist(), strict=True):
            row[key] = None if label < 0 else of[label - first]
    return [Row(f"row {number}", row) for number, row in enumerate(rows, start=1)]
