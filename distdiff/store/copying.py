"""Copies a selection of expanded images into a directory, which becomes an expanded dataset."""

import io
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distdiff.caching.fingerprint import fingerprint
from distdiff.console.bar import with_progress
from distdiff.data.images import Unreadable
from distdiff.data.reading.decoding import read_image, refuse_no_image
from distdiff.store.cards import export_card
from distdiff.store.columns import METADATA, kinds_of
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.encoding import EXTENSIONS, ImageEncoding, extension_of
from distdiff.store.filtering import RowFilter
from distdiff.store.journal import Row
from distdiff.store.options import IMAGEFOLDER, StorageOptions
from distdiff.store.reading import Selection, sources_of
from distdiff.store.shares import Share, working_on
from distdiff.store.tables import read_schema
from distdiff.writing import writing_to

BATCH = 64  # images written at a time
WEBDATASET, PNG = "webdataset", "png"
REVISION = 1  # raise this number when a change to this module changes the copies that are written


@dataclass(frozen=True)
class CopyPlan:
    """The contents of a copy's target directory, given by the metadata rows of the images to copy."""

    rows: list[Row]
    unreadable: tuple[Unreadable, ...] = ()

    def file_names(self) -> Iterator[str]:
        return (row["file_name"] for row in self.rows)

    def missing(self, done: Container[str]) -> np.ndarray:
        """The positions of rows whose images are not among `done`, (m,) int64."""
        return np.array([i for i, row in enumerate(self.rows) if row["file_name"] not in done], dtype=np.int64)

    def factor_with(self, rows: Sequence[Row]) -> int:
        """The largest number of copies of one source, among this plan's rows and `rows` together."""
        return max((1 + row["copy"] for row in (*self.rows, *rows)), default=1)


def copy_images(
    selection: Selection, where: RowFilter | None, target: Path, storage: str, shard_size: int, key: str
) -> None:
    """Copies the selected images to `target`, or resumes an interrupted copy.

    Image files are copied unchanged, with one exception. A WebDataset has a single image format, so if the selection
    has several formats, images that are not PNG are decoded and stored as PNG. `where` is the condition that made the
    selection, and `key` is the configuration key that gave `target`. Raises `UserError` if `target` holds anything
    other than this copy, or cannot be written to.
    """
    with writing_to(target, key):
        _copy(selection, where, ExpandedDirectory(target, key), _options(selection, storage, shard_size))


def _copy(selection: Selection, where: RowFilter | None, directory: ExpandedDirectory, options: StorageOptions) -> None:
    to_png = options.format == WEBDATASET and len(selection.formats) > 1
    rows = [_as_png(row) for row in selection.rows] if to_png else selection.rows
    ingredients = _ingredients(selection, where)
    directory.claim(ingredients, selection.class_names, options, _columns(selection))
    plan = CopyPlan(rows)
    directory.check_names(plan)
    if directory.holds(plan):
        return
    with working_on(directory.path, Share(), directory.key):
        missing = plan.missing(directory.settled())
        directory.storage.begin(Share().name)
        batch: list[tuple[Row, bytes]] = []
        for index in with_progress(missing.tolist(), "export"):
            content = selection.read(index)
            refuse_no_image(io.BytesIO(content), selection.called(index))
            if to_png and extension_of(selection.rows[index]["file_name"]) != PNG:
                image = read_image(io.BytesIO(content), selection.called(index))
                content = ImageEncoding(PNG).encode(image)
            batch.append((rows[index], content))
            if len(batch) == BATCH:
                directory.storage.write(batch)
                batch = []
        directory.storage.write(batch)
        card = export_card(
            name=directory.path.name,
            fingerprint=fingerprint(ingredients),
            images=len(rows),
            classes=len(selection.class_names),
            sources=[(source.path.name, source.identity()) for source in selection.directories],
            condition=where.words if where else None,
            storage=options.format,
        )
        directory.finish(plan, _counts(selection), card)


def _as_png(row: Row) -> Row:
    return row | {"file_name": f"{row['file_name'].rpartition('.')[0]}.{PNG}"}


def _options(selection: Selection, storage: str, shard_size: int) -> StorageOptions:
    """The requested storage format, with the image encoding of the expanded datasets.

    If the datasets' encodings differ, `quality` and `save_size` are None.
    """
    encodings = {directory.storage.options.encoding for directory in selection.directories}
    (encoding,) = encodings if len(encodings) == 1 else [ImageEncoding()]
    kinds = {extension: image_format for image_format, extension in EXTENSIONS.items()}
    image_format = kinds[next(iter(selection.formats))] if len(selection.formats) == 1 else PNG
    return StorageOptions(
        format=storage,
        image_format=image_format,
        quality=encoding.quality,
        save_size=encoding.save_size,
        shard_size=None if storage == IMAGEFOLDER else shard_size,
    )


def _ingredients(selection: Selection, where: RowFilter | None) -> dict[str, Any]:
    """Everything that the copy's content depends on, including the ingredients of the expanded datasets."""
    return {
        "revision": REVISION,
        "method": "export",
        "where": where.words if where else None,
        "sources": [
            {"identity": directory.identity(), "ingredients": directory.manifest()["ingredients"]}
            for directory in selection.directories
        ],
    }


def _columns(selection: Selection) -> dict[str, str]:
    """The kinds of the columns that methods added. A column whose kind differs between datasets is left out."""
    kinds: dict[str, set[str]] = {}
    for directory in selection.directories:
        for name, kind in kinds_of(read_schema(directory.path / METADATA)).items():
            kinds.setdefault(name, set()).add(kind)
    return {name: found.pop() for name, found in kinds.items() if len(found) == 1}


def _counts(selection: Selection) -> dict[str, int]:
    return {
        "sources": len({source for row in selection.rows for source in sources_of(row)}),
        "classes": len(selection.class_names),
        "unreadable": 0,
        "failed": 0,
    }
