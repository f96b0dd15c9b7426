"""The guide that an expansion trains: its own recipe alone makes it, and it is the classifier of that recipe."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from conftest import compose, compose_once
from encoder_models import source_of
from omegaconf import MISSING

from distdiff.caching.stages import StageCache
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, TrainingSet, few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.encoders.config import GuideKeys, RecipeKeys
from distdiff.encoders.source import encoder_source
from distdiff.expansion.assembly import Assembly


@pytest.fixture(scope="module")
def few() -> TrainingSet:
    config = compose("expand", [])
    return few_shot_training_set(config, load_dataset(config.dataset).train, seed=0)


DOWNSTREAM = ["classifier=resnet18", "classifier.input_size=64", "augmentation=randaugment", "train.steps=9"]
DOWNSTREAM += [
    "train.batch_size=8",
    "optimizer.learning_rate=0.1",
    "optimizer.weight_decay=0.1",
    "train.label_smoothing=0.1",
]
DOWNSTREAM += ["train.synthetic_probability=0.2", "train.mixing=concatenate"]


@pytest.mark.parametrize("change", DOWNSTREAM)
def test_what_is_trained_downstream_changes_neither_the_guide_nor_the_images(few: TrainingSet, change: str) -> None:
    def path(*overrides: str) -> Path:
        config = compose_once("run", list(overrides))
        return Assembly(config, StageCache(config.paths.cache_dir)).job(few, 0).path

    assert path(change) == path()


GUIDE = ["classifier=resnet18", "augmentation=none", "input_size=64", "steps=9", "batch_size=8", "learning_rate=0.1"]
GUIDE += ["weight_decay=0.1"]


@pytest.mark.parametrize("change", GUIDE)
def test_each_key_of_the_guides_recipe_makes_another_guide(few: TrainingSet, change: str) -> None:
    assert source_of(f"encoder.guide.{change}").identity(few, 0) != source_of().identity(few, 0)


def test_every_key_of_the_guides_recipe_has_a_value_in_its_yaml_file() -> None:
    keys = compose("expand", []).encoder.guide
    assert (
        {*keys} - {"copies", "members"}
        == {change.partition("=")[0] for change in GUIDE}
        == {item.name for item in fields(RecipeKeys)}
    )
    assert {*keys} == {item.name for item in fields(GuideKeys)}
    assert all(item.default == MISSING for item in fields(RecipeKeys))  # a default in one place


def test_a_guide_of_the_downstream_recipe_is_the_classifier_of_the_original_images(few, tmp_path: Path) -> None:
    recipe = ["encoder.guide.steps=3", "encoder.guide.classifier=resnet18", "encoder.guide.input_size=32"]
    downstream = ["train.steps=3", "classifier=resnet18", "classifier.input_size=32"]
    config = compose("run", [*recipe, *downstream, f"paths.cache_dir={tmp_path}"])
    cache = StageCache(tmp_path)
    guide = encoder_source(config, cache).encoder(few, 0, "guide")
    assert cache.made == 1
    original = ClassifierTrainer(Recipe.of(config), config.trainer, cache).train(few, 0, "original")
    assert cache.made == 1
    assert guide.input_size == 32
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, guide.classifier.state_dict()[name])
