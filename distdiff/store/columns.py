"""The columns of an expanded dataset's metadata, typed for `datasets`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Features, Value

from distdiff.errors import UserError

METADATA, CLASSES = "metadata.parquet", "classes.json"
COLUMNS = {
    "file_name": Value("string"),
    "label": Value("int64"),
    "class_name": Value("string"),
    "source": Value("string"),
    "copy": Value("int64"),
    "seed": Value("int64"),
    "strength": Value("float64"),
}
OPTIONAL_COLUMNS = {
    "energy_before": Value("float64"),
    "energy_after": Value("float64"),
    "group": Value("int64"),
    "gradient_finite": Value("bool"),  # False: went on without guidance
    "prompt": Value("string"),  # the sentence that it was made with
}
PLACES = {  # where a format with shards put an image
    "shard": Value("string"),
    "row": Value("int64"),
    "offset": Value("int64"),
    "size": Value("int64"),
    "end": Value("int64"),  # in journals alone
}
FILE_NAMES = ("_file_name", "_file_names")  # what `datasets` takes for the names of files
KINDS = {bool: "bool", int: "int64", float: "float64", str: "string"}


def metadata_features(class_names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Features:
    """The columns that every method has, and those others that `rows` have; labels as a `ClassLabel`.

    A column that is not known here has the type of its values. Raises `UserError` where these cannot be stored.
    """
    present = set().union(*rows)
    optional = {name: kind for name, kind in OPTIONAL_COLUMNS.items() if name in present}
    further = {name: _kind(name, (row.get(name) for row in rows)) for name in further_columns(present)}
    return Features(COLUMNS | {"label": ClassLabel(names=list(class_names))} | optional | further)


def further_columns(names: Iterable[str]) -> list[str]:
    """Those of `names` that a method brought of its own, sorted."""
    return sorted(set(names) - COLUMNS.keys() - OPTIONAL_COLUMNS.keys() - PLACES.keys())


def column_values(rows: Sequence[Mapping[str, Any]], features: Features) -> dict[str, list]:
    """The rows' values by column, as `features` type them; None where a row lacks one, as those of an older version do."""
    columns = {name: [row.get(name) for row in rows] for name in features}
    for name in further_columns(features):
        convert = {"string": str, "float64": float}.get(features[name].dtype)
        if convert:
            columns[name] = [None if value is None else convert(value) for value in columns[name]]
    return columns


def check_columns(columns: Mapping[str, Iterable[Any]]) -> None:
    """Raises `UserError` where a method brings a column that cannot be stored: by its name, or by one of its values."""
    for name, values in columns.items():
        if name in COLUMNS or name in PLACES or name == "image" or f"_{name}".endswith(FILE_NAMES):
            raise UserError(f"a method must not call a metadata column {name!r}: the expanded dataset uses that name")
        _kind(name, values)


def class_names_of(directory: Path) -> tuple[str, ...]:
    """The class names of an expanded dataset, in the order of its labels."""
    return tuple(json.loads((directory / CLASSES).read_text(encoding="utf-8")))


def _kind(name: str, values: Iterable[Any]) -> Value:
    """The type of a column's values; whole numbers and others are numbers, anything else that is mixed is text."""
    found = {_type(name, value) for value in values if value is not None}
    if len(found) == 1:
        return Value(KINDS[found.pop()])
    return Value("float64" if found == {int, float} else "string")


def _type(name: str, value: Any) -> type:
    fitting = next((kind for kind in KINDS if isinstance(value, kind)), None)
    if fitting is None or (fitting is int and not -(2**63) <= value < 2**63):
        raise UserError(
            f"the metadata column {name!r} cannot hold {value!r}: what can be stored is text, true and false, and "
            "numbers, whole ones of 64 bits"
        )
    return fitting
