"""How downstream training runs: Lightning's arguments and callbacks, resuming, and which weights are kept."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import compose_once
from torch import nn

from distdiff.caching.stages import StageCache
from distdiff.classification.data import ClassificationData, ImageTensors
from distdiff.classification.module import ClassifierTraining
from distdiff.classification.recipe import Recipe
from distdiff.classification.running import Running, evenly
from distdiff.classification.training import ClassifierTrainer, TrainingSet, training_set
from distdiff.data.images import DatasetSplits
from distdiff.data.sources import digits
from distdiff.errors import UserError
from distdiff.ranks.trainer import build_trainer, torch_flags_kept

SMALL = ["train.steps=12", "train.batch_size=4", "classifier.input_size=8", "logger=none"]
EVERY = "callbacks.checkpoint.every_n_train_steps"


@cache
def splits() -> DatasetSplits:
    """A few digits: 15 to train on, and 20 of each of the other splits."""
    found = digits.load(name="digits", split_seed=0)
    return DatasetSplits(
        found.train.select(range(15)),
        found.validation.select(balanced(found.validation.labels)),
        found.test.select(balanced(found.test.labels)),
    )


def balanced(labels: np.ndarray, of_class: int = 2) -> list[int]:
    return sorted(int(i) for label in range(10) for i in np.flatnonzero(labels == label)[:of_class])


@cache
def data() -> TrainingSet:
    return training_set(splits().train, "squash")


def trainer(place: Path, *overrides: str, cache_dir: str = "cache") -> ClassifierTrainer:
    config = compose_once("train", [*SMALL, *overrides])
    running = Running.of(config, splits(), place)
    return ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(place / cache_dir), running)


def weights(place: Path, *overrides: str, cache_dir: str = "cache") -> dict[str, torch.Tensor]:
    """The weights of a training, which is in no other cache."""
    return trainer(place, *overrides, cache_dir=cache_dir).train(data(), 0, "train").state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def checkpoints(place: Path) -> dict[int, Path]:
    return {int(path.stem.rpartition("=")[2]): path for path in (place / "checkpoints").glob("*.ckpt")}


def with_checkpoints(every: int) -> list[str]:
    return ["callbacks=[checkpoint]", f"{EVERY}={every}", "callbacks.checkpoint.save_top_k=-1"]


RESUMED = {
    "plain": [],
    "other draws": ["augmentation=randaugment"],
    "mixing": ["augmentation=cutmix"],
    "accumulated": ["trainer.accumulate_grad_batches=3"],
    "short epochs": ["trainer.limit_train_batches=5"],
    "the same batches": ["trainer.overfit_batches=5"],
    "selection": ["train.selection=validation"],
    "selection in pieces": ["train.selection=validation", "trainer.val_check_interval=3"],
}


@pytest.mark.parametrize("kind", RESUMED)
@pytest.mark.parametrize("step", [4, 5, 10, 12])
def test_a_resumed_training_has_the_weights_of_an_uninterrupted_one(tmp_path: Path, kind: str, step: int) -> None:
    whole = weights(tmp_path, *RESUMED[kind], *with_checkpoints(1))
    path = checkpoints(tmp_path)[step]
    resumed = weights(tmp_path, *RESUMED[kind], f"train.ckpt_path='{path}'", cache_dir="another")
    assert equal(whole, resumed)
