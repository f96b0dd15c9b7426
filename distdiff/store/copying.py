"""Copies a selection of expanded images into a directory that is an expanded dataset again."""

import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distdiff.caching.fingerprint import fingerprint
from distdiff.console.counting import counted
from distdiff.data.images import LabelledImages
from distdiff.data.reading.decoding import read_image
from distdiff.errors import UserError
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.encoding import EXTENSIONS, ImageEncoding
from distdiff.store.export_card import export_card
from distdiff.store.filtering import RowFilter
from distdiff.store.formats.options import IMAGEFOLDER, StorageOptions
from distdiff.store.journal import Row
from distdiff.store.merging import Selection, extension_of
from distdiff.store.shares import Share, working_on
from distdiff.writing import writing_to

KEY, SOURCE_KEY = "export.output_dir", "expansion.output_dir"
BATCH = 64  # images written together
WEBDATASET, PNG = "webdataset", "png"
REVISION = 1  # raise when a change here changes what is written


@dataclass(frozen=True)
class CopyPlan:
    """What a directory asks of a plan to be finished: all images by name, and that nothing is lacking."""

    rows: list[Row]
    images: LabelledImages

    def file_names(self) -> Iterator[str]:
        return (row["file_name"] for row in self.rows)

    def missing(self, done: Collection[str]) -> np.ndarray:
        """The positions of rows whose images are not among `done`, (m,) int64."""
        return np.array([i for i, row in enumerate(self.rows) if row["file_name"] not in done], dtype=np.int64)

    def factor_with(self, rows: Sequence[Row]) -> int:
        """At most so many copies of a source, these rows included."""
        return max((1 + row["copy"] for row in (*self.rows, *rows)), default=1)


def copy_images(selection: Selection, where: RowFilter | None, target: Path, storage: str, shard_size: int) -> None:
    """Fills `target`, from where it was interrupted; image files are copied as they are.

    A WebDataset has one kind of image file: where a selection has several, those that are no PNG are decoded and stored as
    PNG. Raises `UserError` for a directory that holds anything else, or cannot be written to.
    """
    try:
        with writing_to(target, KEY):
            _copy(selection, where, target, storage, shard_size)
    except UserError as error:
        raise UserError(str(error).replace(f"{SOURCE_KEY}=", f"{KEY}=")) from None


def _copy(selection: Selection, where: RowFilter | None, target: Path, storage: str, shard_size: int) -> None:
    to_png = storage == WEBDATASET and len(selection.formats) > 1
    rows = [_as_png(row) for row in selection.rows] if to_png else selection.rows
    directory, options = ExpandedDirectory(target), _options(selection, storage, shard_size)
    ingredients = _ingredients(selection, where)
    directory.claim(ingredients, selection.class_names, options)
    plan = CopyPlan(rows, _as_images(selection))
    if directory.holds(plan):
        return
    with working_on(target, Share()):
        missing = plan.missing(directory.settled())
        directory.storage.begin(Share().name)
        batch: list[tuple[Row, bytes]] = []
        for index in counted(missing.tolist(), "export"):
            content = selection.read(index)
            if to_png and extension_of(selection.rows[index]["file_name"]) != PNG:
                image = read_image(io.BytesIO(content), selection.rows[index]["file_name"])
                content = ImageEncoding(PNG).encode_image(image)
            batch.append((rows[index], content))
            if len(batch) == BATCH:
                directory.storage.write(batch)
                batch = []
        directory.storage.write(batch)
        counts = _counts(selection)
        directory.finish(plan, counts, export_card(target.name, storage, fingerprint(ingredients), selection, where))


def _as_png(row: Row) -> Row:
    return row | {"file_name": f"{row['file_name'].rpartition('.')[0]}.{PNG}"}


def _as_images(selection: Selection) -> LabelledImages:
    labels = np.array([row["label"] for row in selection.rows], dtype=np.int64)
    keys = tuple(row["file_name"] for row in selection.rows)
    return LabelledImages("export", selection.class_names, labels, keys, selection.read, np.arange(len(keys)))


def _options(selection: Selection, storage: str, shard_size: int) -> StorageOptions:
    """The format asked for, and of the images what all of them share."""
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
    """What the copy's content depends on, with all that made the datasets that it is from."""
    return {
        "revision": REVISION,
        "method": "export",
        "where": where.words if where else None,
        "sources": [
            {"identity": directory.identity(), "ingredients": directory.manifest()["ingredients"]}
            for directory in selection.directories
        ],
    }


def _counts(selection: Selection) -> dict[str, int]:
    return {
        "sources": len({(row["class_name"], row["source"]) for row in selection.rows}),
        "classes": len(selection.class_names),
        "unreadable": 0,
        "failed": 0,
    }
