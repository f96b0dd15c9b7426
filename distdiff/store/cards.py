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
    """The card of the expansion of `dataset` by `method`: what it contains, how it was made, and how to load it.

    `made` is the number of images and `words` a description of them; `counts` gives the number of failed images (`failed`)
    and of unreadable sources (`unreadable`).
    """
    lost = (
        f"{counts['unreadable']:,} further source images could not be read, and {counts['failed']:,} images failed: "
        "`failures.parquet` lists them with the reasons.\n"
    )
    told = f"""{made:,} images: {words}.
{lost if counts["unreadable"] or counts["failed"] else ""}\
The original images are not included. The images were made by DistDiff with seed {seed}. `manifest.json` holds every setting
(fingerprint `{fingerprint}`), and `metadata.parquet` has one row per image."""
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
    """The card of an export: what it was made from, and how to load it.

    `sources` has the name and the identity of each expanded dataset that was exported.
    """
    listed = "".join(f"- `{source}` (`{identity}`)\n" for source, identity in sources)
    kept = f"Only the images for which `{condition}` is true are included.\n" if condition else ""
    told = f"""{images:,} generated images in {classes} classes, from
{listed}{kept}
The original images are not included. The images were made by DistDiff. `manifest.json` holds the settings of each expanded
dataset (fingerprint `{fingerprint}`), and `metadata.parquet` has one row per image."""
    return card_text(name.replace("`", ""), told, storage)


def card_text(title: str, told: str, storage: str) -> str:
    """A dataset card: the text `told`, then how to load images that are stored in the format `storage`."""
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

In file and folder names, a `~` follows each word such as `train` or `val` that `datasets` would take for a split. The metadata
columns `class_name` and `source` hold the original names.
"""


def loadable_card(text: str, name: str, files: str, features: Features | None) -> str:
    """The card `text` with metadata added that tells `datasets` that `files` are the data.

    `features` are their columns; None if the files describe them. `datasets` caches what it loaded under the last part of the
    folder's path and the configuration's `name`, without regard to the contents, so different contents need different names.
    """
    card = DatasetCard(text)
    MetadataConfigs({name: {"data_files": [{"split": "train", "path": files}]}}).to_dataset_card_data(card.data)
    if features is not None:
        DatasetInfosDict({name: DatasetInfo(features=features)}).to_dataset_card_data(card.data)
    return str(card)
