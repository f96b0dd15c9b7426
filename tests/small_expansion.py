"""An expansion of the small image folder, and what it wrote."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from conftest import compose
from PIL import Image

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.job import ExpansionJob


def small_jobs(small_run: list[str], image_folder: Path, tmp_path: Path) -> Callable[..., ExpansionJob]:
    """An expansion of the small image folder, with some overrides; guided unless these choose a method or guidance."""

    def make(*overrides: str) -> ExpansionJob:
        given = [
            *small_run,
            "dataset=imagefolder",
            f"dataset.root='{image_folder}'",
            f"expansion.output_dir={tmp_path}/expanded",
        ]
        if not any(item.startswith("method=") for item in overrides):
            given.append("guidance=direct")
        if {"method=mix", "method=augmentation"} & set(overrides):  # which ask no guide
            given = [item for item in given if not item.startswith("encoder.guide.")]
        config = compose("expand", [*given, *overrides])
        cache = StageCache(config.paths.cache_dir)
        data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
        made = Assembly(config, cache).job(data, config.seed)
        made.claim()
        return made

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(Image.open(folder / name)).astype(int) for name in contents(folder)}
