"""Which images a classifier learns last, and `expansion.sources=hard`."""

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from conftest import compose
from PIL import Image
from small_expansion import small_jobs

from distdiff.caching.stages import StageCache
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, training_set
from distdiff.data.images import LabelledImages
from distdiff.expansion.hard import hardest


def images(swapped: int) -> LabelledImages:
    """Bright and dark squares; `swapped` of each class look like the other class."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20)
    pixels = rng.integers(0, 80, (40, 16, 16, 3), dtype=np.uint8) + (labels * 150).astype(np.uint8)[:, None, None, None]
    for first in (0, 20):
        pixels[first : first + swapped] = 229 - pixels[first : first + swapped]
    names = tuple(f"{i}.png" for i in range(40))
    return LabelledImages(
        "shades", ("dark", "bright"), labels, names, read=lambda i: Image.fromarray(pixels[i]), indices=np.arange(40)
    )


def trainer(tmp_path: Path) -> ClassifierTrainer:
    keys = ["train.steps=60", "augmentation=none", "classifier.input_size=16", "logger=none"]
    config = compose("train", keys)
    return ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(tmp_path))


def test_images_that_look_like_another_class_are_learnt_last(tmp_path: Path) -> None:
    order = trainer(tmp_path).learning_order(training_set(images(swapped=3), "squash"), 0, "order")
    for first in (0, 20):
        latest = first + np.argsort(-order[first : first + 20])[:3]
        assert len({first, first + 1, first + 2}.intersection(latest.tolist())) >= 2, order
    assert len(np.unique(order)) == 40


def test_looking_changes_nothing_about_the_training(tmp_path: Path, monkeypatch) -> None:
    data = training_set(images(swapped=3), "squash")
    seen = {}
    fit = ClassifierTrainer._fit

    def keep(self, lightning, *arguments):
        seen[len(lightning.callbacks)] = {
            k: v.clone() for k, v in fit(self, lightning, *arguments).state_dict().items()
        }
        return self._untrained(data)

    monkeypatch.setattr(ClassifierTrainer, "_fit", keep)
    classifiers = trainer(tmp_path)
    classifiers.train(data, 0, "plain")
    classifiers.learning_order(data, 0, "watched")
    plain, watched = (seen[count] for count in sorted(seen))
    for name, weights in plain.items():
        torch.testing.assert_close(watched[name], weights, atol=0, rtol=0)


def test_hard_images_are_those_that_were_not_learnt_early() -> None:
    """Oracle: at some time in each class's training, the hard images are exactly those that are still wrong at or after it."""
    rng = np.random.default_rng(0)
    last_wrong = np.concatenate([rng.permutation(20), rng.permutation(12)])
    labels = np.repeat([0, 1], [20, 12])
    for fraction in (0.3, 0.35, 0.4):
        chosen = hardest(last_wrong + 0.5, labels, fraction)
        for label, size in ((0, 20), (1, 12)):
            own = np.flatnonzero(labels == label)
            hard = set(own) & set(chosen)
            assert len(hard) == math.ceil(fraction * size)
            assert any(hard == set(own[last_wrong[own] >= time]) for time in range(20))


def test_by_default_30_to_40_percent_of_a_larger_class_are_hard(small_run) -> None:
    fraction = compose("expand", [*small_run, "expansion.sources=hard"]).expansion.hard_fraction
    for size in (10, 50, 500):
        assert 0.3 <= len(hardest(np.arange(size), np.zeros(size, np.int64), fraction)) / size <= 0.4


def test_hard_sources_get_the_copies_of_all(small_run, image_folder, tmp_path: Path) -> None:
    job = small_jobs(small_run, image_folder, tmp_path)("expansion.sources=hard", "expansion.factor=2", "guidance=none")
    job.run("test")
    rows = pyarrow.parquet.read_table(job.path / "metadata.parquet").to_pylist()
    assert len(rows) == 2 * len(job.sources)
    for name in ("cat", "train"):
        own = [row for row in rows if row["class_name"] == name]
        assert len({row["source"] for row in own}) == 2  # of three
        assert len(own) == 6
