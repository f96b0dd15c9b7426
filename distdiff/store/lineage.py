"""An expanded dataset as something that runs make and use."""

from pathlib import Path

from distdiff.links import followed
from distdiff.store.columns import CLASSES, METADATA
from distdiff.store.directory import MANIFEST, ExpandedDirectory
from distdiff.store.tables import read_table
from distdiff.tracking.lineage import DATASET, Stored


def stored_dataset(path: Path | str) -> Stored:
    """The finished expanded dataset at `path`.

    Its manifest and its metadata stand for it, which name every image: a directory may hold a hundred thousand.
    """
    folder = followed(Path(path).expanduser()).absolute()
    manifest = ExpandedDirectory(folder).manifest()
    identity = manifest["fingerprint"]
    facts = {"fingerprint": identity, "images": len(read_table(folder / METADATA, ("file_name",)))}
    files = tuple(folder / name for name in (MANIFEST, CLASSES, METADATA) if (folder / name).is_file())
    name = folder.name if identity in folder.name else f"{folder.name}-{identity[:8]}"
    return Stored(DATASET, name, folder, files, facts)
