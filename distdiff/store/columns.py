"""The columns of an expanded dataset's metadata, typed for `datasets`."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from datasets import ClassLabel, Features, Value

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


def metadata_features(class_names: Sequence[str], present: Collection[str]) -> Features:
    """The columns that every method has, and of the others those `present`; labels as a `ClassLabel`."""
    optional = {name: kind for name, kind in OPTIONAL_COLUMNS.items() if name in present}
    return Features(COLUMNS | {"label": ClassLabel(names=list(class_names))} | optional)


def class_names_of(directory: Path) -> tuple[str, ...]:
    """The class names of an expanded dataset, in the order of its labels."""
    return tuple(json.loads((directory / CLASSES).read_text(encoding="utf-8")))
