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
    """The dataset card of the expansion of `dataset` by `method`.

    The card says what the expanded dataset contains, how the dataset was made, and how to load it. `made` is the number
    of images, and `words` describes these images. `counts["failed"]` is the number of failed images, and
    `counts["unreadable"]` is the number of unreadable sources.
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
    """The dataset card of an export.

    The card lists the expanded datasets that were exported, and says how to load the images. `sources` has the name and
    the identity of each expanded dataset that was exported.
    """
    listed = "".join(f"- `{source}` (`{identity}`)\n" for source, identity in sources)
    kept = f"Only the images for which `{condition}` is true are included.\n" if condition else ""
    told = f"""{images:,} generated images in {classes} classes, from
{listed}{kept}
The original images are not included. The images were made by DistDiff. `manifest.json` holds the settings of each expanded
dataset (fingerprint `{fingerprint}`), and `metadata.parquet` has one row per image."""
    return card_text(name.replace("`", ""), told, storage)


def card_text(title: str, told: str, storage: str) -> str:
    """A dataset card that holds the text `told`, and says how to load images stored in the format `storage`."""
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
    """The dataset card `text` with added metadata, which tells `datasets` to load `files`, a file pattern.

    `features` are the columns of the files, or None if the files themselves describe their columns. `datasets` caches
    loaded data under the last part of the folder's path and `name`, which the card gives to the dataset configuration,
    without regard to the contents. Different contents therefore need different names.
    """
    card = DatasetCard(text)
    MetadataConfigs({name: {"data_files": [{"split": "train", "path": files}]}}).to_dataset_card_data(card.data)
    if features is not None:
        DatasetInfosDict({name: DatasetInfo(features=features)}).to_dataset_card_data(card.data)
    return str(card)
