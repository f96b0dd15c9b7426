"""Copies images that another row of a study has made already. Rows that differ only in selection make equal images."""

from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from distdiff.caching.fingerprint import fingerprint
from distdiff.errors import UserError
from distdiff.store.candidates import CandidateStore, in_batches
from distdiff.store.directory import MANIFEST, ExpandedDirectory
from distdiff.store.formats.base import Storage
from distdiff.store.journal import Row

SELECTION = "selection"  # this ingredient decides which images are kept, not how they are made


def adopt(siblings: Iterable[ExpandedDirectory], wanted: Iterable[str], storage: Storage) -> set[str]:
    """Copies those `wanted` images (file names) that one of the `siblings` has into the open `storage`.

    Returns the names of the copied images. The copies equal the images that this job would make, because
    everything that decides the pixels is the same for both directories.
    """
    missing = set(wanted)
    for other in siblings:
        for batch in _batches(other, missing):
            storage.write(batch)
            missing -= {row["file_name"] for row, _ in batch}
    return set(wanted) - missing


def _batches(other: ExpandedDirectory, wanted: Set[str]) -> Iterator[list[tuple[Row, bytes]]]:
    """The wanted images of another directory, in batches.

    Ends early if an image cannot be read, for instance because another process is moving it.
    """
    try:
        store = CandidateStore(other)
        rows = [row for name, row in (store.rows() | other.rows()).items() if name in wanted]
        yield from in_batches(rows, store.reader(rows))
    except (OSError, UserError):
        return  # images that were not copied will be made


def siblings_of(directory: Path, ingredients: Mapping[str, Any], storage: Storage) -> Iterator[ExpandedDirectory]:
    """Neighbouring directories whose images were made in the same way and are encoded as in `storage`."""
    same = made_by(ingredients)
    for path in sorted(directory.parent.glob(f"*/{MANIFEST}")):
        other = ExpandedDirectory(path.parent)
        if path.parent.resolve() == directory.resolve():
            continue
        try:
            found = made_by(other.manifest()["ingredients"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not an expanded dataset, or one that is being removed right now
        if found == same and other.storage.options.encoding == storage.options.encoding and _whole(other):
            yield other


def _whole(other: ExpandedDirectory) -> bool:
    """Whether all images of the directory can be read now. Images in an unfinished shard cannot be read."""
    return other.storage.options.shard_size is None or other.manifest()["complete"]


def made_by(ingredients: Mapping[str, Any]) -> str:
    """The fingerprint of all that decides what images look like; it leaves out which of them are kept."""
    how = {name: value for name, value in ingredients.items() if name != SELECTION}
    return fingerprint(how)
