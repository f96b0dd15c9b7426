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
    """The card of an expansion of `dataset` by `method`: what it is, what it was made from, and how to read it.

    `made` is the number of images, which `words` describe; `counts` has the failed images and the unreadable sources.
    """
    lost = (
        f"{counts['unreadable']:,} more source images could not be read and {counts['failed']:,} images failed: "
        "`failures.parquet` says which and why.\n"
    )
    told = f"""{made:,} images: {words}.
{lost if counts["unreadable"] or counts["failed"] else ""}\
The originals are not included. Made by DistDiff with seed {seed}; `manifest.json` holds every setting
(fingerprint `{fingerprint}`), `metadata.parquet` one row per image."""
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
    """The card of an export: what it was made from, how to read it; `sources` are expanded datasets' names and identities."""
    listed = "".join(f"- `{source}` (`{identity}`)\n" for source, identity in sources)
    kept = f"Only their images with `{condition}` are included.\n" if condition else ""
    told = f"""{images:,} generated images in {classes} classes, from
{listed}{kept}
The originals are not included. Made by DistDiff; `manifest.json` holds what each was made with (fingerprint `{fingerprint}`),
`metadata.parquet` one row per image."""
    return card_text(name.replace("`", ""), told, storage)


def card_text(title: str, told: str, storage: str) -> str:
    """A card of generated images in this storage format: the text `told`, and how to read them."""
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
    """A card that tells `datasets` which files are the data, and (`features`) what their columns are if the files do not say.

    `datasets` caches what it read under the last part of the folder's path and the configuration's `name`, whatever the files
    hold: different contents need different names.
    """
    card = DatasetCard(text)
    MetadataConfigs({name: {"data_files": [{"split": "train", "path": files}]}}).to_dataset_card_data(card.data)
    if features is not None:
        DatasetInfosDict({name: DatasetInfo(features=features)}).to_dataset_card_data(card.data)
    return str(card)
