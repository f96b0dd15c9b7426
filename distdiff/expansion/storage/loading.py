"""The storage formats by name."""

from pathlib import Path

from distdiff.expansion.storage.base import Storage
from distdiff.expansion.storage.imagefolder import ImageFolder
from distdiff.expansion.storage.options import StorageOptions
from distdiff.expansion.storage.parquet import Parquet
from distdiff.expansion.storage.webdataset import WebDataset

FORMATS: dict[str, type[Storage]] = {"imagefolder": ImageFolder, "webdataset": WebDataset, "parquet": Parquet}


def storage_of(directory: Path, options: StorageOptions) -> Storage:
    """The storage of a directory with these options."""
    return FORMATS[options.format](directory, options)
