"""The dataset cards of expanded and of exported datasets."""

from collections.abc import Mapping, Sequence

from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from distdiff.store.options import IMAGEFOLDER


def dataset_card(
    dataset: str,
    method: str,
    seed: int,
    fingerprint: str,
    made: int,
    words: str,
    counts: Mapping[str, int],
    storage: str,
) -> str:
    """Of an expansion of `dataset` by `method`: what it is, what it was made from, and how to read it.

    `made` images that `words` describe; `counts` says how many failed and how many sources were unreadable.
    """
    lost = (
        f"{counts['unreadable']:,} more source images could not be read and {counts['failed']:,} images failed: "
        "`failures.parquet` says which and why.\n"
    )
    told = f"""{made:,} images: {words}.
{lost if counts["unreadable"] or counts["failed"] else ""}\
The originals are not included. Made by DistDiff with seed {seed}; `manifest.json` holds every setting
(fingerprint `{fingerprint}`), `metadata.parquet` one row an image."""
    return card_text(f"{dataset}, expanded by `{method}`", told, storage)


def export_card(
    name: str,
    fingerprint: str,
    images: int,
    classes: int,
    sources: Sequence[tuple[str, str]],
    condition: str | None,
    storage: str,
) -> str:
    """Of an export: what it was made from, and how to read it; `sources` are names and identities of expanded datasets."""
    listed = "".join(f"- `{source}` (`{identity}`)\n" for source, identity in sources)
    kept = f"Of their images those with `{condition}`.\n" if condition else ""
    told = f"""{images:,} generated images in {classes} classes, from
{listed}{kept}
The originals are not included. Made by DistDiff; `manifest.json` holds what each was made with (fingerprint `{fingerprint}`),
`metadata.parquet` one row an image."""
    return card_text(name.replace("`", ""), told, storage)


def card_text(title: str, told: str, storage: str) -> str:
    """A card of generated images in this storage format: what `told` says of them, and how to read them."""
    by_folders = storage == IMAGEFOLDER
    call = 'load_dataset("imagefolder", data_dir="<this folder>"' if by_folders else 'load_dataset("<this folder>"'
    return f"""---
task_categories:
- image-classification
tags:
- synthetic
- distdiff
---
# {title}

{told}

```python
from datasets import load_dataset

images = {call}, split="train")
```

A `~` in a name follows a word such as `train` or `val` that `datasets` would take for a split; `class_name` and `source`
in the metadata hold the names as they were.
"""


def loadable_card(text: str, name: str, files: str, features: Features | None) -> str:
    """A card that tells `datasets` which files are the data, and what their columns are where these do not say.

    `datasets` caches what it read by the last part of the folder's path and the configuration's `name`, whatever the files
    hold: contents that differ must have names that differ.
    """
    card = DatasetCard(text)
    MetadataConfigs({name: {"data_files": [{"split": "train", "path": files}]}}).to_dataset_card_data(card.data)
    if features is not None:
        DatasetInfosDict({name: DatasetInfo(features=features)}).to_dataset_card_data(card.data)
    return str(card)
