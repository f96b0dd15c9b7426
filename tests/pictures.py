"""Makers of smooth pictures in every encoding, a small folder of them, and how tests watch what is decoded."""

import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from conftest import compose
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from omegaconf import DictConfig
from PIL import Image

from distdiff.classification.data import ClassificationData, ImageTensors
from distdiff.data.datasets import load_dataset
from distdiff.data.images import LabelledImages


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with a few edges, like a photo's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def jpeg_of(image: Image.Image, **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, options.pop("format", "JPEG"), quality=90, **options)
    return stream


def png_of(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def clear(level: int = 0) -> Image.Image:
    return Image.fromarray(np.full((8, 8, 4), level, np.uint8))


def photo_folder(tmp_path: Path) -> Path:
    """Two classes of six training pictures and one test picture, and one training picture that is all transparent."""
    for seed in range(14):
        path = tmp_path / "photos" / ("train" if seed < 12 else "test") / "ab"[seed % 2] / f"{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(120 + seed, 90, seed).save(path, quality=90)
    clear().save(tmp_path / "photos/train/a/clear.png")
    for path in (tmp_path / "photos").rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    return tmp_path / "photos"


@functools.cache
def composed(option: str) -> DictConfig:
    given = ["dataset.root=.", "dataset.name=any", "dataset.validation_fraction=0"]
    return compose("train", [f"dataset={option}", *given]).dataset


def training_images(root: Path, option: str = "imagefolder", **keys: object) -> LabelledImages:
    dataset = composed(option).copy()
    for key, value in ({"root": str(root), "cache_dir": f"{root.parent}/cache"} | keys).items():
        dataset[key] = value
    return load_dataset(dataset).train


def table(place: Path, images: list[Image.Image]) -> Path:
    """Two parquet files, of training and of test images."""
    place.mkdir()
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    rows = {
        "image": [{"bytes": png_of(image), "path": None} for image in images],
        "label": [number % 2 for number in range(len(images))],
    }
    for split in ("train", "test"):
        Dataset.from_dict(rows, features=features).to_parquet(str(place / f"{split}.parquet"))
    return place


def calls_of(reader: Callable, module: ModuleType, monkeypatch) -> list:
    """The files that `module` hands to `reader` from now on."""
    calls = []
    monkeypatch.setattr(module, reader.__name__, lambda file, *more: calls.append(file) or reader(file, *more))
    return calls


def batches(images: LabelledImages, size: int = 24, samples: int = 64) -> list[torch.Tensor]:
    """What a classifier is shown in two epochs and a bit, and in testing."""
    data = ClassificationData(*(ImageTensors([images], size, "crop", samples),) * 2, steps=8, batch_size=5, seed=3)
    return [pixels for loader in (data.train_dataloader(), data.test_dataloader()) for pixels, _ in loader]


def assert_same(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    assert len(first) == len(second) == 9
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
