"""The dataset card of an exported dataset."""

from distdiff.store.cards import card_text
from distdiff.store.filtering import RowFilter
from distdiff.store.merging import Selection


def export_card(name: str, storage: str, identity: str, selection: Selection, where: RowFilter | None) -> str:
    """What it was made from, and how to read it."""
    sources = "".join(f"- `{directory.path.name}` (`{directory.identity()}`)\n" for directory in selection.directories)
    condition = f"Of their images those with `{where.words}`.\n" if where else ""
    told = f"""{len(selection.rows):,} generated images in {len(selection.class_names)} classes, from
{sources}{condition}
The originals are not included. Made by DistDiff; `manifest.json` holds what each was made with (fingerprint `{identity}`),
`metadata.parquet` one row an image."""
    return card_text(name.replace("`", ""), told, storage)
