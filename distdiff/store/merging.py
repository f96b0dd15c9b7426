"""Images of one or several expanded datasets, merged and filtered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow.parquet

from distdiff.errors import UserError
from distdiff.store.columns import COLUMNS, METADATA, OPTIONAL_COLUMNS, class_names_of
from distdiff.store.directory import ExpandedDirectory, finished_directory
from distdiff.store.encoding import EXTENSIONS
from distdiff.store.filtering import RowFilter, say_kept
from distdiff.store.journal import Row
from distdiff.store.names import safe_name
from distdiff.wording import some


@dataclass(frozen=True)
class Selection:
    """`rows[i]` are the metadata of image i, named apart from all others, and `read(i)` gives its file's bytes.

    `keys[i]` names it inside its class, as the source of what is made from it: the file name with the source's own key.
    """

    directories: tuple[ExpandedDirectory, ...]
    class_names: tuple[str, ...]
    rows: list[Row]
    keys: tuple[str, ...]
    read: Callable[[int], bytes]

    @property
    def formats(self) -> set[str]:
        """The extensions of the images' files."""
        return {extension_of(row["file_name"]) for row in self.rows}


def select(key: str, roots: object, where: RowFilter | None = None) -> Selection:
    """The images of the expanded datasets that `key`, a directory or a list of them, names, those for which `where` is true.

    Labels follow the classes of the first. A file name that an earlier dataset has gets a number: `a.png__0000-2.png`.
    Raises `UserError` where a directory is no finished expanded dataset or named twice, and where classes differ.
    """
    directories = tuple(finished_directory(str(root)) for root in listed(roots))
    paths = [directory.path.resolve() for directory in directories]
    if len(set(paths)) < len(paths):
        raise UserError(f"{key}={roots} is not allowed: a directory is in it twice")
    class_names = _class_names(directories)
    number_of = {name: label for label, name in enumerate(class_names)}
    tables = [pyarrow.parquet.read_table(directory.path / METADATA) for directory in directories]
    kept = tables if where is None else [where.apply(table) for table in tables]
    if where is not None:
        say_kept(sum(map(len, kept)), sum(map(len, tables)), where, [directory.path.name for directory in directories])
    columns = [name for name in OPTIONAL_COLUMNS if any(name in table.column_names for table in kept)]
    names = _distinct_names(directories, tables)
    rows, keys, readers = [], [], []
    for number, (directory, table) in enumerate(zip(directories, kept, strict=True)):
        own = table.to_pylist()
        read = directory.storage.reader(own)
        for position, row in enumerate(own):
            fields = {name: row.get(name) for name in (*COLUMNS, *columns)}
            file_name, key = names[number, row["file_name"]]
            rows.append(fields | {"file_name": file_name, "label": number_of[row["class_name"]]})
            keys.append(key)
            readers.append((read, position))

    def read_file(index: int) -> bytes:
        read, position = readers[index]
        return read(position)

    return Selection(directories, class_names, rows, tuple(keys), read_file)


def extension_of(file_name: str) -> str:
    return PurePosixPath(file_name).suffix.removeprefix(".")


def listed(roots: object) -> list[str]:
    """One directory, or a list of them, as a list."""
    return list(map(str, roots)) if isinstance(roots, Sequence) and not isinstance(roots, str) else [str(roots)]


def _class_names(directories: Sequence[ExpandedDirectory]) -> tuple[str, ...]:
    """Those that all have, in the order of the first."""
    first, *others = (class_names_of(directory.path) for directory in directories)
    for directory, names in zip(directories[1:], others, strict=True):
        if differing := sorted({*first} ^ {*names}):
            raise UserError(
                f"{directory.path} and {directories[0].path} have different classes, so they are not merged: "
                f"only one of them has {some(differing)}"
            )
    return first


def _distinct_names(
    directories: Sequence[ExpandedDirectory], tables: Sequence[pyarrow.Table]
) -> dict[tuple[int, str], tuple[str, str]]:
    """A file name and a key for each image, by its dataset's number and its name there; the same whatever is filtered."""
    names: dict[tuple[int, str], tuple[str, str]] = {}
    taken: set[str] = set()  # without extensions, which are no part of a WebDataset's keys
    for number, (directory, table) in enumerate(zip(directories, tables, strict=True)):
        known = set(class_names_of(directory.path))
        usual = directory.storage.options.encoding.extension
        for row in table.select(["file_name", "class_name", "source", "copy"]).to_pylist():
            if row["class_name"] not in known:
                raise UserError(f"{directory.path}: its metadata name a class that it has not, {row['class_name']!r}")
            # Made anew from what names it: a file name out of metadata must lead nowhere.
            stem, end = f"{safe_name(row['class_name'])}/{safe_name(row['source'])}", f"__{row['copy']:04d}"
            again = 1
            while f"{stem}{end}" in taken:
                again += 1
                end = f"__{row['copy']:04d}-{again}"
            taken.add(f"{stem}{end}")
            extension = extension_of(row["file_name"])
            end += f".{extension if extension in EXTENSIONS.values() else usual}"
            names[number, row["file_name"]] = f"{stem}{end}", f"{row['source']}{end}"
    return names
