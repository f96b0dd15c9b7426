"""The dataset card of an expanded dataset."""

from typing import Any

from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint


def dataset_card(method: str, ingredients: dict[str, Any], counts: dict[str, int], config: DictConfig) -> str:
    """What it is, what it was made from, and how to read it."""
    images = counts["sources"] * counts["factor"] - counts["failed"]
    lost = (
        f"{counts['unreadable']:,} more source images could not be read and {counts['failed']:,} images failed: "
        "`failures.parquet` says which and why.\n"
    )
    return f"""---
task_categories:
- image-classification
tags:
- synthetic
- distdiff
---
# {config.dataset.name}, expanded by `{method}`

{images:,} images: {counts["factor"]} copies of each of {counts["sources"]:,} source images in {counts["classes"]} classes.
{lost if counts["unreadable"] or counts["failed"] else ""}\
The originals are not included. Made by DistDiff with seed {ingredients["seed"]}; `manifest.json` holds every setting
(fingerprint `{fingerprint(ingredients)}`), `metadata.parquet` one row an image.

```python
from datasets import load_dataset

images = load_dataset("imagefolder", data_dir="<this folder>", split="train")
```

A `~` in a name follows a word such as `train` or `val` that `datasets` would take for a split; `class_name` and `source`
in the metadata hold the names as they were.
"""
