"""The columns of an expanded dataset's metadata, with their types for `datasets`."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import pyarrow
from datasets import ClassLabel, Features, List, Value

from distdiff.errors import UserError
from distdiff.texts import UnreadableFile, read_json

METADATA, CLASSES = "metadata.parquet", "classes.json"
SOFT_LABELS, SOFT_WEIGHTS = "soft_labels", "soft_weights"
COLUMNS = {
    "file_name": Value("string"),
    "label": Value("int64"),  # for a soft label: the class with the largest weight
    "class_name": Value("string"),
    "source": Value("string"),  # null if the image was made from no source
    "sources": List(Value("string")),  # class/key of each real image that the image was made from, the source first
    "copy": Value("int64"),
    "seed": Value("int64"),
    "strength": Value("float64"),  # null if nothing was denoised
    SOFT_LABELS: List(Value("int64")),  # classes of the soft label, in order of decreasing weight
    SOFT_WEIGHTS: List(Value("float64")),  # weights of these classes
}
OPTIONAL_COLUMNS = {
    "energy_before": Value("float64"),
    "energy_after": Value("float64"),
    "group": Value("int64"),
    "gradient_finite": Value("bool"),  # False if the gradient was not finite, so that sampling went on without guidance
    "prompt": Value("string"),  # the sentence that the image was generated from
}
PLACES = {  # where a sharded format stored an image
    "shard": Value("string"),
    "row": Value("int64"),
    "offset": Value("int64"),
    "size": Value("int64"),
    "end": Value("int64"),  # a column that only journals have
}
FILE_NAMES = ("_file_name", "_file_names")  # `datasets` treats columns whose names have these endings as file names
KINDS = {bool: "bool", int: "int64", float: "float64", str: "string"}
TEXT, LIST = "string", "list"  # the kind of a list is, for example, `list[int64]`
Column = Value | List


def metadata_features(
    class_names: Sequence[str], rows: Sequence[Mapping[str, Any]], declared: Mapping[str, str] | None = None
) -> Features:
    """The types of the columns that every expanded dataset has, and of the further columns in `rows` or `declared`.

    The type of `label` is a `ClassLabel`. `declared` maps column names to kinds, as `kind_of` returns them. An
    undeclared column of a method has the type of the column's values. Raises `UserError` for values that cannot be
    stored.
    """
    declared = declared or {}
    present = set().union(*rows, declared)
    optional = {name: kind for name, kind in OPTIONAL_COLUMNS.items() if name in present}
    further = {
        name: _column(declared[name]) if name in declared else _column(_found(name, (row.get(name) for row in rows)))
        for name in further_columns(present)
    }
    return Features(COLUMNS | {"label": ClassLabel(names=list(class_names))} | optional | further)


def kind_of(name: str, declared: Any) -> str:
    """The kind of a column that a method declares as `str`, `int`, `float`, `bool` or a list of one of these types.

    Raises `UserError` for any other declaration.

    >>> kind_of("angle", float), kind_of("parts", list[str])
    ('float64', 'list[string]')
    """
    if declared in KINDS:
        return KINDS[declared]
    (element,) = get_args(declared) if get_origin(declared) is list else (None,)
    if element not in KINDS:
        raise UserError(
            f"the metadata column {name!r} is declared as {declared}; allowed are str, int, float, bool, or a list of one of them"
        )
    return f"{LIST}[{KINDS[element]}]"


def kind_in(column: Any) -> str:
    """The kind of a column whose type in a dataset's features is `column`."""
    return f"{LIST}[{column.feature.dtype}]" if isinstance(column, List) else column.dtype


def further_columns(names: Iterable[str]) -> list[str]:
    """The elements of `names` that are columns added by a method, sorted."""
    return sorted(set(names) - COLUMNS.keys() - OPTIONAL_COLUMNS.keys() - PLACES.keys())


def column_values(rows: Sequence[Mapping[str, Any]], features: Features) -> dict[str, list]:
    """The values of each column in all rows, with the types of `features`.

    A row that an older version wrote may lack a column. The value of that column is then None.
    """
    columns = {name: [row.get(name) for row in rows] for name in features}
    for name in further_columns(features):
        convert = {"string": str, "float64": float}.get(kind_in(features[name]))
        if convert:
            columns[name] = [None if value is None else convert(value) for value in columns[name]]
    return columns


def check_columns(columns: Mapping[str, Iterable[Any]], declared: Mapping[str, str] | None = None) -> None:
    """Raises `UserError` if a column added by a method cannot be stored because of its name or one of its values.

    Raises `UserError` also if the values are not of the kind that `declared` gives for the column.
    """
    for name, values in columns.items():
        check_column_name(name)
        found = _found(name, values := list(values))
        wanted = (declared or {}).get(name, found)
        if wanted != found and not (wanted == "float64" and found == "int64") and any(v is not None for v in values):
            raise UserError(f"the metadata column {name!r} is declared as {wanted} but holds {found}")


def check_column_name(name: str) -> None:
    """Raises `UserError` for a column name that a method must not use."""
    if name in COLUMNS or name in PLACES or name == "image" or f"_{name}".endswith(FILE_NAMES):
        raise UserError(f"a method must not call a metadata column {name!r}: the expanded dataset uses that name")


def class_names_of(directory: Path) -> tuple[str, ...]:
    """The class names of an expanded dataset, in the order of its labels. Raises `UnreadableFile`."""
    names = read_json(directory / CLASSES, list)
    if not names or not all(isinstance(name, str) for name in names):
        raise UnreadableFile(directory / CLASSES, "it does not hold a list of class names")
    return tuple(names)


def kinds_of(schema: pyarrow.Schema) -> dict[str, str]:
    """The kind of each column that a method added, by column name, for a metadata table with this schema."""
    features = Features.from_arrow_schema(schema)
    return {name: kind_in(features[name]) for name in further_columns(features)}


def _column(kind: str) -> Column:
    return List(Value(kind[len(LIST) + 1 : -1])) if kind.startswith(LIST) else Value(kind)


def _found(name: str, values: Iterable[Any]) -> str:
    """The kind of a column's values. A mix of integers and floats is stored as float64, and any other mix as text."""
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, list) for value in given):
        return f"{LIST}[{_kind(name, itertools.chain.from_iterable(given))}]"
    return _kind(name, given)


def _kind(name: str, values: Iterable[Any]) -> str:
    found = {_type(name, value) for value in values}
    if len(found) == 1:
        return KINDS[found.pop()]
    return "float64" if found == {int, float} else TEXT


def _type(name: str, value: Any) -> type:
    fitting = next((kind for kind in KINDS if isinstance(value, kind)), None)
    if fitting is None or (fitting is int and not -(2**63) <= value < 2**63):
        raise UserError(
            f"the metadata column {name!r} cannot hold {value!r}: allowed are text, true and false, numbers "
            "(integers of at most 64 bits), and lists of these"
        )
    return fitting
