"""Classifiers: what they promise as classifiers and as guides, and what a batch is made of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from omegaconf import DictConfig
from safetensors.torch import save_model
from torch import nn

from distdiff.caching.stages import StageCache
from distdiff.classification.data import ClassificationData, ImageTensors
from distdiff.classification.module import ClassifierTraining
from distdiff.classification.networks import ImageClassifier, small_cnn
from distdiff.classification.recipe import Recipe, adamw_one_cycle
from distdiff.classification.testing import Accuracies, ClassAccuracy
from distdiff.classification.training import WEIGHTS, ClassifierTrainer, _read_classifier, training_set
from distdiff.commands.train import classes_table
from distdiff.console.output import console
from distdiff.data.sources import digits
from distdiff.encoders.guide import GuideEncoder
from distdiff.errors import UserError
from distdiff.keys import build
from distdiff.option_files.search_path import OURS


def trainer_of(config: DictConfig, place: Path) -> ClassifierTrainer:
    return ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(place))


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "resnet50"])
def test_every_classifier_gives_logits_and_differentiable_unit_features(name: str) -> None:
    config = compose("run", [f"classifier={name}", "classifier.input_size=64"]).classifier
    classifier = build(config, 3).eval()
    images = torch.rand(2, 3, 40, 48, requires_grad=True)
    assert classifier(images).shape == (2, 3)
    features = GuideEncoder(classifier)(images)
    assert features.shape == (2, classifier.feature_dim)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    features.sum().backward()  # of one feature alone the gradient may be zero, behind a ReLU
    assert images.grad.abs().sum() > 0


def keeping(num_classes: int) -> ImageClassifier:
    """A network of a user's own that initialises something which is no weight."""
    classifier = ImageClassifier(nn.Flatten(), 3 * 8 * 8, num_classes, 8, mean=0.5, std=0.5)
    classifier.direction = nn.init.ones_(torch.full((3,), torch.nan))
    return classifier


@pytest.mark.parametrize("name", [*OURS.options("classifier"), "own"])
def test_a_classifier_that_is_read_has_its_weights_and_only_one_of_a_users_own_is_initialised(
    name: str, tmp_path: Path, monkeypatch
) -> None:
    option = {"_target_": f"{__name__}.keeping"}
    if name != "own":
        option = compose("train", [f"classifier={name}", "classifier.input_size=32"]).classifier
    classifier = build(option, 3)
    save_model(classifier, tmp_path / WEIGHTS)
    drawn = []
    monkeypatch.setattr(nn.init, "kaiming_uniform_", lambda tensor, *_, **__: drawn.append(tensor))
    read = _read_classifier(tmp_path, option, ["a", "b", "c"])
    assert bool(drawn) == (name == "own")
    assert read.state_dict().keys() == classifier.state_dict().keys()
    for key, value in classifier.state_dict().items():
        assert torch.equal(read.state_dict()[key], value), key
    assert not read.training
    assert name != "own" or torch.equal(read.direction, torch.ones(3))
    monkeypatch.undo()
    later = nn.init.ones_(torch.full((2,), torch.nan))
    assert torch.equal(later, torch.ones(2))  # later networks are initialised


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_real_and_synthetic_images_come_at_the_given_ratio(share: float) -> None:
    pool = digits.load(name="digits", split_seed=0).train
    parts = [pool.select(range(20)), pool.select(range(20, 220))]
    data = ClassificationData(ImageTensors(parts, 32, "squash"), None, 200, 32, 0, "probability", share)
    drawn = np.array(list(data._sampler()))
    assert len(drawn) == 6400
    assert (drawn >= 20).mean() == pytest.approx(share, abs=0.03)


def test_without_a_ratio_every_image_comes_equally_often() -> None:
    parts = [digits.load(name="digits", split_seed=0).train.select(range(30))]
    data = ClassificationData(ImageTensors(parts, 32, "squash"), None, 30, 10, 0)
    counts = np.bincount(list(data._sampler()), minlength=30)
    assert counts.min() == counts.max() == 10


def test_each_classs_accuracy_is_that_of_its_images(tmp_path: Path) -> None:
    config = compose("train", ["train.batch_size=7"])
    images = digits.load(name="digits", split_seed=0).test.select(range(40))
    classifier = build(config.classifier, 10).eval()
    tested = trainer_of(config, tmp_path).test(classifier, images, config.dataset.fit)
    with torch.no_grad():
        pixels = torch.stack([images.tensor(i, config.classifier.input_size, config.dataset.fit) for i in range(40)])
        right = classifier(pixels).argmax(1).numpy() == images.labels
    assert tested.accuracy == pytest.approx(right.mean())
    for label, found in enumerate(tested.classes):
        of_class = images.labels == label
        assert (found.class_name, found.num_test) == (images.class_names[label], of_class.sum())
        assert found.accuracy == pytest.approx(right[of_class].mean())


def test_the_twenty_worst_classes_are_shown_the_worst_first(capsys) -> None:
    classes = [ClassAccuracy(f"class {n}", accuracy=n / 30, num_test=10) for n in reversed(range(25))]
    console.print(classes_table(Accuracies(0.5, tuple(classes))))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()]
    assert [line[1] for line in lines[2:-1]] == [str(n) for n in range(20)]
    assert lines[-1] == ["…", "5", "more,", "in", "results.json"]


def test_one_class_alone_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    pool = digits.load(name="digits", split_seed=0).train
    only = replace(pool.select(np.flatnonzero(pool.labels == 0)), class_names=("zero",))
    trainer = trainer_of(compose("run", []), tmp_path)
    with pytest.raises(UserError, match="one class, zero: a classifier needs two"):
        trainer.fingerprint(training_set(only, "squash"), seed=0)


def identity(tmp_path: Path, *overrides: str, parts: int = 1) -> str:
    """Of a classifier trained on some digits, or on these and as many that pass for expanded."""
    data = training_set(digits.load(name="digits", split_seed=0).train.select(range(20)), "squash")
    for _ in range(parts - 1):
        data = data.with_part(data.parts[0], "expanded")
    return trainer_of(compose("train", list(overrides)), tmp_path).fingerprint(data, seed=0)


CHANGES = [
    "classifier.input_size=64",
    "classifier=resnet18",
    "augmentation=none",
    "train.steps=3",
    "train.batch_size=2",
]
CHANGES += ["optimizer.learning_rate=0.01", "optimizer.weight_decay=0", "optimizer=sgd", "train.label_smoothing=0.1"]


@pytest.mark.parametrize("change", CHANGES)
def test_every_part_of_a_recipe_tells_classifiers_apart(tmp_path: Path, change: str) -> None:
    assert identity(tmp_path, change) != identity(tmp_path)


def test_equal_recipes_are_one_however_they_are_given(tmp_path: Path) -> None:
    base = compose("train", [])
    given = Recipe.of(base)
    plainly = {"_target_": "distdiff.classification.networks.small_cnn", "input_size": 32, "name": "called otherwise"}
    default = {"_target_": "distdiff.classification.augmentations.default", "horizontal_flip": False, "num_ops": 5}
    own = Recipe(plainly, default, adamw_one_cycle(0.002, 5e-4), 200, 32, label_smoothing=0)
    assert own.identity(has_synthetic=False) == given.identity(has_synthetic=False)
    assert build(own.classifier, 3).preprocess == build(base.classifier, 3).preprocess


def test_the_share_of_synthetic_images_counts_only_where_there_are_some(tmp_path: Path) -> None:
    other = "train.synthetic_probability=0.3"
    assert identity(tmp_path, other) == identity(tmp_path)
    assert identity(tmp_path, other, parts=2) != identity(tmp_path, parts=2)


def test_the_judges_steps_are_its_own(tmp_path: Path) -> None:
    data = training_set(digits.load(name="digits", split_seed=0).train.select(range(20)), "squash")
    base = trainer_of(compose("run", []), tmp_path)
    same = trainer_of(compose("run", ["train.steps=7"]), tmp_path)
    assert base.with_steps(7).fingerprint(data, 0) == same.fingerprint(data, 0) != base.fingerprint(data, 0)


@pytest.mark.parametrize("steps", range(1, 12))
def test_a_recipe_may_have_any_number_of_steps(steps: int) -> None:
    recipe = replace(Recipe.of(compose("train", [])), steps=steps)
    training = ClassifierTraining(small_cnn(2, input_size=8), nn.Identity(), recipe)
    configured = training.configure_optimizers()
    rates = []
    for _ in range(steps):
        rates.append(configured["optimizer"].param_groups[0]["lr"])
        configured["optimizer"].step()
        configured["lr_scheduler"]["scheduler"].step()
    assert max(rates) <= recipe.optimizer["learning_rate"]
    assert rates[-1] > 0
