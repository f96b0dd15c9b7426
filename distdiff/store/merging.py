"""Merges several expanded datasets into one, with unique file names and the metadata columns of all datasets."""

from collections.abc import Sequence
from dataclasses import replace

from distdiff.store.columns import COLUMNS, METADATA, OPTIONAL_COLUMNS, further_columns
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.encoding import EXTENSIONS, extension_of
from distdiff.store.journal import Row
from distdiff.store.names import SOURCELESS, safe_name
from distdiff.store.reading import Selection
from distdiff.store.tables import read_schema, read_table


def merged(selection: Selection) -> Selection:
    """The selection, with the metadata rows and keys of a single merged dataset.

    If images of two datasets have the same file name, the image of the later dataset gets a number:
    `a.png__0000-2.png`. A key identifies an image when the merged dataset is expanded again. The key is the file name
    without the class folder, and with the source's key unescaped. Labels are indices into the selection's
    `class_names`.
    """
    number = {name: label for label, name in enumerate(selection.class_names)}
    names, columns = _distinct_names(selection.directories), _columns(selection.directories)
    rows: list[Row] = []
    keys: list[str] = []
    for place, row in zip(selection.places, selection.rows, strict=True):
        file_name, key = names[place, row["file_name"]]
        fields = {name: row.get(name) for name in columns}
        rows.append(fields | {"file_name": file_name, "label": number[row["class_name"]]})
        keys.append(key)
    return replace(selection, rows=rows, keys=tuple(keys))


def _columns(directories: Sequence[ExpandedDirectory]) -> list[str]:
    """The metadata columns of all datasets, except the columns that say where an image is stored."""
    schemas = [read_schema(directory.path / METADATA) for directory in directories]
    present = {name for schema in schemas for name in schema.names}
    return [*COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in present), *further_columns(present)]


def _distinct_names(directories: Sequence[ExpandedDirectory]) -> dict[tuple[int, str], tuple[str, str]]:
    """Maps (dataset index, file name in that dataset) to (new file name, key), for all images, selected or not."""
    names: dict[tuple[int, str], tuple[str, str]] = {}
    taken: set[str] = set()  # names without extensions, because a WebDataset's keys have no extensions
    for number, directory in enumerate(directories):
        usual = directory.storage.options.encoding.extension
        table = read_table(directory.path / METADATA, columns=["file_name", "class_name", "source", "copy"])
        for row in table.to_pylist():
            # The name is built anew, because a file name taken from metadata could lead out of the directory.
            source = SOURCELESS if row["source"] is None else row["source"]
            stem, end = f"{safe_name(row['class_name'])}/{safe_name(source)}", f"__{row['copy']:04d}"
            again = 1
            while f"{stem}{end}" in taken:
                again += 1
                end = f"__{row['copy']:04d}-{again}"
            taken.add(f"{stem}{end}")
            extension = extension_of(row["file_name"])
            end += f".{extension if extension in EXTENSIONS.values() else usual}"
            names[number, row["file_name"]] = f"{stem}{end}", f"{source}{end}"
    return names
