"""The dataset card of an expanded dataset."""

from typing import Any

from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard
from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint
from distdiff.expansion.plan import ExpansionPlan
from distdiff.store.formats.options import IMAGEFOLDER


def dataset_card(
    method: str, ingredients: dict[str, Any], plan: ExpansionPlan, counts: dict[str, int], config: DictConfig
) -> str:
    """What it is, what it was made from, and how to read it."""
    lost = (
        f"{counts['unreadable']:,} more source images could not be read and {counts['failed']:,} images failed: "
        "`failures.parquet` says which and why.\n"
    )
    told = f"""{len(plan) - counts["failed"]:,} images: {plan.words}.
{lost if counts["unreadable"] or counts["failed"] else ""}\
The originals are not included. Made by DistDiff with seed {ingredients["seed"]}; `manifest.json` holds every setting
(fingerprint `{fingerprint(ingredients)}`), `metadata.parquet` one row an image."""
    return card_text(f"{config.dataset.name}, expanded by `{method}`", told, config.expansion.format)


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
