"""What identifies a recipe, which of its keys go together, and the published recipe."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose, compose_once
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from distdiff.caching.fingerprint import fingerprint
from distdiff.caching.stages import StageCache
from distdiff.classification.data import ImageTensors
from distdiff.classification.module import ClassifierTraining
from distdiff.classification.networks import resnet18, small_cnn
from distdiff.classification.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, TrainingSet, training_set
from distdiff.data.images import LabelledImages
from distdiff.data.sources import digits
from distdiff.encoders.guide import guide_recipe
from distdiff.errors import UserError
from distdiff.keys import build

# Of the recipes that these overrides gave before there were optimizers, epochs, mixings, class weights and crops.
EARLIER = {
    "": ("9a3f0cb7fbb501fe", "975ac93f2c94c892"),
    "train.steps=12": ("a1ccbe268d78f952", "0e0394889add2c77"),
    "train.steps=12 train.mixing=concatenate": ("a1ccbe268d78f952", "8ff52c4473c17002"),
    "train.steps=12 classifier=resnet18 classifier.input_size=32": ("626f525ba9e3a65c", "1dbb7a4a94e6309a"),
}


@pytest.mark.parametrize("typed", EARLIER)
def test_recipes_of_earlier_versions_keep_their_fingerprints(typed: str) -> None:
    recipe = Recipe.of(compose("run", typed.split()))
    assert (fingerprint(recipe.identity(False)), fingerprint(recipe.identity(True))) == EARLIER[typed]


@pytest.mark.parametrize(
    ("classifier", "expected"), [("small_cnn", "9a3f0cb7fbb501fe"), ("resnet50", "6d2ea5fa178db833")]
)
def test_guides_of_earlier_versions_keep_their_fingerprints(classifier: str, expected: str) -> None:
    config = compose("expand", [f"encoder.guide.classifier={classifier}"])
    assert fingerprint(guide_recipe(config.encoder.guide, config.options).identity(False)) == expected


def test_a_classifier_of_earlier_versions_is_found_in_the_cache(tmp_path: Path) -> None:
    config = compose("run", ["train.steps=12", "logger=none"])
    classifiers = ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(tmp_path))
    pool = digits.load(name="digits", split_seed=0).train.select(range(20))
    assert classifiers.fingerprint(TrainingSet((pool,), ("real",), "squash"), 0) == "7181d88d3595dfaf"
    assert classifiers.fingerprint(TrainingSet((pool, pool), ("real", "expanded"), "squash"), 0) == "c39cd1a18e97c985"


CHANGES = ["optimizer=sgd", "optimizer.schedule=cosine", "optimizer.warmup=0.1", "train.class_weights=balanced"]
CHANGES += ["train.class_weights=[1,2]", "train.resize=40", "train.mixing=concatenate", "train.mixing=replace"]
CHANGES += ["train.mixing=replace train.synthetic_probability=0.3", "train.mixing=weighted train.synthetic_weight=1"]
CHANGES += ["train.mixing=weighted train.synthetic_weight=0.5", "optimizer=sgd optimizer.momentum=0.8"]
CHANGES += ["optimizer=sgd optimizer.nesterov=true", "classifier=resnet18", "augmentation=rotate"]
CHANGES += ["classifier=resnet18 classifier.mean=[0.5,0.5,0.5]", "classifier=resnet18 classifier.std=[0.5,0.5,0.5]"]


def test_every_ingredient_tells_recipes_apart() -> None:
    recipes = [Recipe.of(compose_once("train", change.split())) for change in ["", *CHANGES]]
    assert len({fingerprint(recipe.identity(True)) for recipe in recipes}) == len(recipes)
    alone = {fingerprint(Recipe.of(compose_once("train", [f"train.mixing={name}"])).identity(False)) for name in MIXED}
    assert alone == {fingerprint(recipes[0].identity(False))}  # without synthetic images there is nothing to mix


MIXED = ("probability", "concatenate", "replace")
ONE_LINE = {
    "train.epochs=3 train.steps=4": "train.steps=4 train.epochs=3 is not allowed: one of the two",
    "train.budget=epochs": "train.budget=epochs is not allowed without train.epochs",
    "train.max_epochs=3": "here it is called train.epochs",
    "train.learning_rate=0.1": "there is no such key; here it is called optimizer.learning_rate",
    "train.weight_decay=0.1": "there is no such key; here it is called optimizer.weight_decay",
    "optimizer.momentum=0.5": "optimizer=adamw does not read optimizer.momentum; it is for optimizer=sgd",
    "optimizer=sgd optimizer.nesterov=true optimizer.momentum=0": "optimizer.nesterov=true is not allowed with",
    "optimizer.schedule=step": "one of one_cycle, cosine, linear, constant",
    "train.synthetic_probability=null": "train.mixing=concatenate draws every image equally often",
    "train.mixing=concatenate train.synthetic_probability=0.3": "train.mixing=concatenate does not draw by probability",
    "train.mixing=weighted": "needs a weight: give one, train.synthetic_weight=...",
    "train.synthetic_weight=0.5": "train.mixing=weighted does",
    "train.class_weights=balance": "train.class_weights=balance is not allowed: null, balanced, or a list",
    "train.class_weights=[1,0]": "train.class_weights=[1, 0] is not allowed: null, balanced, or a list",
    "train.class_weights={a: 1}": "is not allowed: null, balanced, or a list",
    "train.resize=16": "train.resize=16 is not allowed: at least classifier.input_size=32",
    "classifier=resnet18 classifier.mean=[0.5,0.5]": "classifier.mean=[0.5, 0.5] is not allowed: three numbers",
    "classifier=resnet18 classifier.std=[0,1,1]": "classifier.std[0]=0.0 is not allowed: a number at least 0.001",
    "classifier.mean=[0.5,0.5,0.5]": "classifier=small_cnn does not read classifier.mean; it is for classifier=resnet18",
}


@pytest.mark.parametrize("typed", ONE_LINE)
def test_what_does_not_go_together_is_one_line(typed: str) -> None:
    overrides = [typed] if "{" in typed else typed.split()
    with pytest.raises(UserError) as caught:
        compose("train", overrides)
    assert ONE_LINE[typed] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", ["train", "run"])
def test_epochs_alone_are_enough_and_without_both_there_are_200_steps(command: str) -> None:
    train = compose(command, ["train.epochs=3"]).train
    assert (train.steps, train.epochs) == (None, 3)
    train = compose(command, []).train
    assert (train.steps, train.epochs) == (200, None)


def test_an_epoch_is_one_pass_over_the_images_however_many_batches_a_step_has() -> None:
    keys = ["train.epochs=3", "train.batch_size=4"]
    steps = [
        Recipe.of(compose("train", [*keys, f"trainer.accumulate_grad_batches={number}"])).for_images(20).steps
        for number in (1, 2, 5)
    ]
    assert steps == [3 * 5, 3 * 3, 3 * 1]


def test_a_key_that_only_a_row_reads_is_taken_in_a_study() -> None:
    rows = "study.rows={light: [train.mixing=weighted]}"
    config = compose("run", ["train.synthetic_weight=0.5", rows])
    assert config.options.rows.light.train.synthetic_weight == 0.5
    with pytest.raises(UserError, match=r"train\.synthetic_weight=0\.5 is not allowed: train\.mixing=probability"):
        compose("run", ["train.synthetic_weight=0.5", "study.rows={light: [train.mixing=replace]}"])


def framed() -> LabelledImages:
    """Images of 40 pixels a side: black, with a white square of 32 in the middle."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[4:36, 4:36] = 255
    labels = np.array([0, 1] * 4)
    names = tuple(map(str, range(8)))
    read = lambda _: Image.fromarray(pixels)  # noqa: E731
    return LabelledImages("framed", ("a", "b"), labels, names, read=read, indices=np.arange(8))


def test_test_images_are_cut_out_of_the_middle() -> None:
    images = ImageTensors([framed()], 40, "squash", centre=32)
    assert images[0][0].shape == (3, 32, 32)
    assert (images[0][0] == 1).all()
    assert not (ImageTensors([framed()], 40, "squash")[0][0] == 1).all()


def test_training_images_are_cut_out_at_random(tmp_path: Path) -> None:
    config = compose("train", ["train.resize=40", "train.steps=2", "augmentation=none", "logger=none"])
    recipe, seen = Recipe.of(config), []
    classifier = build(config.classifier, 2)
    classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module = ClassifierTraining(classifier, nn.Identity(), recipe)
    module.log = lambda *_: None
    pixels = torch.stack([ImageTensors([framed()], 40, "squash")[0][0]] * 64)
    torch.manual_seed(0)
    module.training_step((pixels, torch.tensor([0, 1] * 32)), 0)
    assert seen[0].shape == (64, 3, 32, 32)
    black = (seen[0] < 0.5).float().mean((1, 2, 3))
    assert black.min() < 0.1 < black.max() <= 1 - 28**2 / 32**2 + 1e-6
    assert len(black.unique()) > 5
    classifiers = ClassifierTrainer(recipe, config.trainer, StageCache(tmp_path))
    trained = classifiers.train(training_set(framed(), "squash"), 0, "train")
    assert classifiers.test(trained, framed(), "squash").accuracy == 0.5  # all images are alike


def test_a_network_may_have_an_input_of_its_own_size(tmp_path: Path) -> None:
    """A user's own network need not follow `classifier.input_size`: its images are of the size that it takes."""
    config = compose("train", ["train.steps=2", "augmentation=none", "logger=none"])
    recipe = replace(Recipe.of(config), classifier={**config.classifier, "_target_": f"{__name__}.of_40_pixels"})
    classifiers = ClassifierTrainer(recipe, config.trainer, StageCache(tmp_path))
    data = training_set(framed(), "squash")
    assert classifiers.test(classifiers.train(data, 0, "train"), framed(), "squash").accuracy == 0.5
    assert set(SIZES) == {(40, 40)}


SIZES: list[tuple[int, ...]] = []


def of_40_pixels(num_classes: int, *, input_size: int) -> nn.Module:
    network = small_cnn(num_classes, input_size=input_size + 8)
    network.register_forward_pre_hook(lambda _, inputs: SIZES.append(tuple(inputs[0].shape[-2:])))
    return network


def test_networks_normalize_with_the_mean_and_the_deviation_that_are_given() -> None:
    images = torch.rand(2, 3, 32, 32)
    usual = resnet18(2, input_size=32).preprocess(images)
    torch.testing.assert_close(usual, (images - 0.45) / 0.225)
    given = resnet18(2, input_size=32, mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD)).preprocess(images)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(given, (images - mean) / std)
    with pytest.raises(UserError, match=r"mean=\[0\.5, 0\.5\] is not allowed: a number for red, green and blue"):
        resnet18(2, input_size=32, mean=[0.5, 0.5])


def test_rotations_are_no_larger_than_the_given_angle() -> None:
    dot = torch.zeros(200, 1, 65, 65)
    dot[:, :, 32, 57:60] = 1  # right of the middle
    rotated = build(compose("train", ["augmentation=rotate", "augmentation.horizontal_flip=false"]).augmentation)
    torch.manual_seed(0)
    found = rotated(dot.expand(-1, 3, -1, -1))[:, 0]
    weights = found / found.sum((1, 2), keepdim=True)
    places = torch.arange(65.0) - 32
    up, right = (weights * places[:, None]).sum((1, 2)), (weights * places).sum((1, 2))
    angles = torch.rad2deg(torch.atan2(up, right))
    assert 13 < angles.max() < 15.5
    assert -15.5 < angles.min() < -13


# The recipe of GIF (Zhang et al., 2023) and DistDiff (Zhu et al., 2024), as conf/train/README.md shows it.
PUBLISHED = ["dataset.fit=squash", "train.resize=256", "augmentation=rotate", "classifier=resnet50"]
PUBLISHED += [f"classifier.mean={list(IMAGENET_MEAN)}", f"classifier.std={list(IMAGENET_STD)}"]
PUBLISHED += ["optimizer=sgd", "train.epochs=100", "train.batch_size=64", "train.mixing=concatenate"]


def test_the_published_recipe_is_a_command_line(tmp_path: Path) -> None:
    config = compose("train", ["dataset=imagefolder", f"dataset.root='{tmp_path}'", *PUBLISHED, "logger=none"])
    keys = OmegaConf.to_container(config.optimizer)
    wanted = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.0}
    assert {name: keys[name] for name in wanted} == wanted
    assert (config.augmentation.degrees, config.augmentation.horizontal_flip) == (15, True)
    recipe = Recipe.of(config)
    assert (recipe.loaded_size(224), recipe.classifier["input_size"]) == (256, 224)
    assert recipe.for_images(300, 1500).steps == 100 * 29

    small = [
        "train.resize=48",
        "classifier.input_size=32",
        "classifier=resnet18",
        "train.epochs=1",
        "train.batch_size=4",
    ]
    config = compose("train", ["dataset=imagefolder", f"dataset.root='{tmp_path}'", *PUBLISHED, *small, "logger=none"])
    classifiers = ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(tmp_path))
    data = training_set(framed(), "squash")
    assert classifiers.recipe_for(data).steps == 2
    assert 0 <= classifiers.test(classifiers.train(data, 0, "train"), framed(), "squash").accuracy <= 1
