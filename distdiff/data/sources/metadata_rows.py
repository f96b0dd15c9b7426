"""Reads the rows of a metadata file: .csv as people and spreadsheets write it, .jsonl or .parquet."""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from pyarrow import ArrowException

from distdiff.data.notes import note
from distdiff.data.reading.pointers import pointer
from distdiff.data.sources.class_labels import counting_from_one, first_number
from distdiff.errors import UserError, first_line
from distdiff.wording import counted

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Row:
    """A row of a file. `where` names its number in messages; in a .csv file, also its line."""

    where: str
    values: dict[str, Any]


def read_rows(name: str, file: Path, shown: str) -> list[Row]:
    """The rows of a metadata file, which messages call `shown`.

    Notes what was taken as meant. Raises `UserError` for a file that cannot be read, and for a row that does not fit.
    """
    try:
        if (instead := pointer(file)) is not None:
            raise UserError(f"{shown}: {instead}")
        if file.suffix == ".csv":
            return _csv_rows(name, shown, file.read_bytes())
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


def _csv_rows(name: str, shown: str, content: bytes) -> list[Row]:
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
    _check_quotes(shown, text, between)
    try:
        rows, tidied = _fields(shown, text, between, spaces_before_quotes=False)
    except UserError as error:
        try:  # `a.png, "one, two"` has a quoted field only if the space before it does not count
            rows, tidied = _fields(shown, text, between, spaces_before_quotes=True)
        except UserError:
            raise error from None
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


def _fields(shown: str, text: str, between: str, spaces_before_quotes: bool) -> tuple[list[Row], list[str]]:
    """The rows, and what was left out of them. Raises `UserError` for a row with too many or too few fields."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=between, skipinitialspace=spaces_before_quotes)
    columns, rows, blank, ended, spaced = None, [], 0, 0, int(spaces_before_quotes)
    for fields in lines:
        plain = [field.strip() for field in fields]
        if not any(plain):
            blank += 1
            continue
        if columns is None:
            columns = list(plain)
            while not columns[-1]:
                columns.pop()
            ended += len(columns) < len(plain)
            spaced += plain != fields
            continue
        where = f"row {len(rows) + 1} (line {lines.line_num})"
        spaced += sum(a != b for a, b in zip(plain, fields, strict=True))
        if len(plain) > len(columns) and not any(plain[len(columns) :]):
            plain, fields = plain[: len(columns)], fields[: len(columns)]
            ended += 1
        if len(plain) != len(columns):
            what = f"{counted(len(plain), 'field')}, but there are {counted(len(columns), 'column')}"
            quoted = (
                f"; a text with {between!r} in it needs quotation marks around it" if len(plain) > len(columns) else ""
            )
            raise UserError(f"{shown}, {where}: it has {what} ({', '.join(columns)}){quoted}")
        rows.append(Row(where, dict(zip(columns, plain, strict=True))))
    if columns is not None and (twice := sorted({column for column in columns if columns.count(column) > 1})):
        raise UserError(f"{shown}: it has several columns {twice[0]!r}; each needs a name of its own")
    said = [f"without {counted(blank, 'blank row')}"] if blank else []
    said += [f"without empty fields at the end of {counted(ended, 'row')}"] if ended else []
    said += [f"without spaces around {counted(spaced, 'field')}"] if spaced else []
    return rows, said


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
