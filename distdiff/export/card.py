"""The dataset card of an exported dataset."""

from distdiff.expansion.filtering import RowFilter
from distdiff.expansion.selection import Selection
from distdiff.expansion.storage.options import IMAGEFOLDER


def export_card(name: str, storage: str, identity: str, selection: Selection, where: RowFilter | None) -> str:
    """What it was made from, and how to read it."""
    sources = "".join(f"- `{directory.path.name}` (`{directory.identity()}`)\n" for directory in selection.directories)
    condition = f"Of their images those with `{where.words}`.\n" if where else ""
    by_folders = storage == IMAGEFOLDER
    call = 'load_dataset("imagefolder", data_dir="<this folder>"' if by_folders else 'load_dataset("<this folder>"'
    return f"""---
task_categories:
- image-classification
tags:
- synthetic
- distdiff
---
# {name.replace("`", "")}

{len(selection.rows):,} generated images in {len(selection.class_names)} classes, from
{sources}{condition}
The originals are not included. Made by DistDiff; `manifest.json` holds what each was made with (fingerprint `{identity}`),
`metadata.parquet` one row an image.

```python
from datasets import load_dataset

images = {call}, split="train")
```

A `~` in a name follows a word such as `train` or `val` that `datasets` would take for a split; `class_name` and `source`
in the metadata hold the names as they were.
"""
