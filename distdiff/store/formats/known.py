"""The storage formats by name."""

from collections.abc import Mapping
from pathlib import Path

from distdiff.store.formats.base import Storage
from distdiff.store.formats.imagefolder import ImageFolder
from distdiff.store.formats.parquet import Parquet
from distdiff.store.formats.webdataset import WebDataset
from distdiff.store.options import StorageOptions

FORMATS: dict[str, type[Storage]] = {"imagefolder": ImageFolder, "webdataset": WebDataset, "parquet": Parquet}


def storage_of(directory: Path, options: StorageOptions, declared: Mapping[str, str] | None = None) -> Storage:
    """The storage of `directory` with `options`. `declared` maps the names of metadata columns to their kinds."""
    return FORMATS[options.format](directory, options, declared)
