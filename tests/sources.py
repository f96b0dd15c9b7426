"""How tests load a dataset from a small copy of it, and look at what was read."""

import copy
from functools import cache
from pathlib import Path

import pytest
from conftest import compose
from omegaconf import DictConfig, OmegaConf

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.commands.configuration import load_option
from distdiff.data.datasets import load_dataset
from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.naming import default_name
from distdiff.errors import UserError
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.job import ExpansionJob

SPLITS = ("train", "validation", "test")


def configured(option: str, tmp_path: Path, **keys: object) -> DictConfig:
    """`dataset=<option>` with some keys set, its paths below `tmp_path`."""
    dataset = copy.deepcopy(_option(option))
    for key, value in keys.items():
        OmegaConf.update(dataset, key, value)
    paths = {"data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache"), "image_cache_gb": 4}
    config = OmegaConf.create({"paths": paths, "dataset": dataset}).dataset
    config.name = config.name or default_name(config)
    return config


@cache
def _option(option: str) -> DictConfig:
    """Composed once for all tests, which takes 0.15 s."""
    return load_option("dataset", option)


def load(option: str, tmp_path: Path, **keys: object) -> DatasetSplits:
    return load_dataset(configured(option, tmp_path, **keys))


def contents(images: LabelledImages) -> dict[str, list[str]]:
    """Keys by class."""
    return {
        name: [key for key, label in zip(images.keys, images.labels, strict=True) if label == number]
        for number, name in enumerate(images.class_names)
    }


def sizes(splits: DatasetSplits) -> tuple[int, ...]:
    return tuple(len(getattr(splits, split)) for split in SPLITS)


def red(images: LabelledImages) -> list[int]:
    """The value that `picture` painted each image with."""
    return [images.image(position).getpixel((0, 0))[0] for position in range(len(images))]


def error_of(option: str, tmp_path: Path, **keys: object) -> str:
    with pytest.raises(UserError) as caught:
        load(option, tmp_path, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def expansion(small_run: list[str], root: Path, *overrides: str) -> ExpansionJob:
    """An unguided expansion of the folder `root`, not begun."""
    config = compose(
        "expand", [*small_run, "dataset=imagefolder", f"dataset.root='{root}'", "guidance=none", *overrides]
    )
    cache = StageCache(config.paths.cache_dir)
    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    return Assembly(config, cache).job(data, config.seed)
