"""Expansions by a stand-in in every storage format, and what `datasets` and the study read of them."""

from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
from conftest import compose_once
from standin import StandIn, standin_job

from distdiff.expansion.job import ExpansionJob
from distdiff.store.reading import read_expanded

FORMATS, SHARDED = ("imagefolder", "webdataset", "parquet"), ("webdataset", "parquet")
SOURCES, FACTOR = 7, 4


def standin_jobs(tmp_path: Path) -> Callable[..., tuple[ExpansionJob, StandIn]]:
    """An expansion of 7 sources by a stand-in, in shards of 5."""

    def make(folder: str, *overrides: str, sources: int = SOURCES) -> tuple[ExpansionJob, StandIn]:
        given = [f"expansion.factor={FACTOR}", "expansion.batch_size=3", "expansion.shard_size=5", "logger=none"]
        config = compose_once("expand", [*given, *overrides])
        return standin_job(config, tmp_path / folder, sources)

    return make


def pixels(path: Path) -> dict[str, np.ndarray]:
    """By file name without its extension."""
    images = read_expanded(path)
    return {images.keys[i].rpartition(".")[0]: np.asarray(images.image(i)).astype(int) for i in range(len(images))}


def loaded(path: Path, storage: str) -> list[tuple[str, str, np.ndarray]]:
    """Class name, source's name and pixels of each image as `datasets` gives them, in the order of both names."""
    if storage == "imagefolder":
        images = datasets.load_dataset("imagefolder", data_dir=str(path), split="train")
    else:
        images = datasets.load_dataset(str(path), split="train")
    label = "cls" if storage == "webdataset" else "label"
    assert isinstance(images.features[label], datasets.ClassLabel)
    (picture,) = (name for name, kind in images.features.items() if isinstance(kind, datasets.Image))
    made = []
    for row in images:
        metadata = row["json"] if storage == "webdataset" else row
        name = images.features[label].int2str(row[label])
        assert name == metadata["class_name"]
        made.append((name, f"{metadata['source']} {metadata['copy']}", np.asarray(row[picture]).astype(int)))
    return sorted(made, key=lambda entry: entry[:2])
