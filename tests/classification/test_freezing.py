"""Classifiers with a frozen backbone: what is trained, what is saved, and what is computed only once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose_once
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from distdiff.caching.stages import StageCache
from distdiff.classification.freezing import FrozenBackbone
from distdiff.classification.networks import ImageClassifier, small_cnn
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, TrainingSet, training_set
from distdiff.data.images import LabelledImages
from distdiff.data.readable import checked
from distdiff.data.sources import digits


def pretrained_cnn(num_classes: int, *, input_size: int, freeze: str) -> ImageClassifier:
    """Stands in for a classifier with published weights: the same random ones in each process."""
    state = torch.get_rng_state()
    torch.manual_seed(5)
    classifier = small_cnn(num_classes, input_size=input_size)
    torch.set_rng_state(state)
    if freeze != "none":
        classifier.backbone = FrozenBackbone(classifier.backbone)
    classifier.head = nn.Linear(classifier.feature_dim, num_classes)
    classifier.freeze = freeze
    return classifier


def trainer(tmp_path: Path, freeze: str, steps: int = 20, **train: object) -> ClassifierTrainer:
    """`train` are fields of the recipe."""
    config = compose_once("train", [])
    option = {"_target_": f"{__name__}.pretrained_cnn", "name": "pretrained_cnn", "input_size": 16, "freeze": freeze}
    return ClassifierTrainer(
        replace(Recipe.of(config), classifier=option, steps=steps, **train), config.trainer, StageCache(tmp_path)
    )


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    return digits.load(name="digits", split_seed=0).train


@pytest.fixture(scope="module")
def data(images: LabelledImages) -> TrainingSet:
    return training_set(images.select(range(60)), "squash")


def backbone_of(classifier: ImageClassifier) -> dict[str, torch.Tensor]:
    backbone = classifier.backbone
    return dict((backbone._held[0] if isinstance(backbone, FrozenBackbone) else backbone).state_dict())


@pytest.mark.parametrize("freeze", ["backbone", "linear_probe"])
def test_only_the_head_of_a_frozen_classifier_is_trained_and_saved(
    data: TrainingSet, tmp_path: Path, freeze: str
) -> None:
    """The statistics of batch normalisation stay too."""
    trained = trainer(tmp_path, freeze).train(data, 0, "x")
    before = backbone_of(pretrained_cnn(10, input_size=16, freeze="none"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone_of(trained).items())
    (file,) = tmp_path.glob("classifiers/*/model.safetensors")
    assert load_file(file).keys() == {"head.weight", "head.bias"}
    again = trainer(tmp_path, freeze).train(data, 0, "x")
    pixels = torch.rand(3, 3, 16, 16)
    assert torch.equal(trained(pixels), again(pixels))


def test_what_is_not_frozen_is_trained(data: TrainingSet, tmp_path: Path) -> None:
    before = backbone_of(pretrained_cnn(10, input_size=16, freeze="none"))
    after = backbone_of(trainer(tmp_path, "none").train(data, 0, "x"))
    assert not any(torch.equal(tensor, before[name]) for name, tensor in after.items() if tensor.is_floating_point())


def test_a_linear_probe_sees_each_image_once_and_tests_too(
    data: TrainingSet, images: LabelledImages, tmp_path: Path, monkeypatch
) -> None:
    seen, forward = [], FrozenBackbone.forward
    monkeypatch.setattr(FrozenBackbone, "forward", lambda own, x: seen.append(len(x)) or forward(own, x))
    test, _ = checked(images.select(range(300, 340)))
    for seed in (0, 1):  # the second seed and test find all features in the cache
        probe = trainer(tmp_path, "linear_probe")
        probe.accuracy(probe.train(data, seed, "x"), test, "squash")
    assert sum(seen) == 60 + 40


def test_a_linear_probe_is_a_linear_classifier_of_the_features_without_augmentation(
    data: TrainingSet, images: LabelledImages, tmp_path: Path
) -> None:
    """Oracle: scikit-learn's logistic regression on the backbone's features."""
    probe = trainer(tmp_path, "linear_probe", steps=400)
    test, _ = checked(images.select(range(300, 500)))
    classifier = probe.train(data, 0, "x")
    ours = probe.accuracy(classifier, test, "squash")
    with torch.no_grad():
        known, new = (classifier.features(part.tensors(16, "squash")).numpy() for part in (data.parts[0], test))
    theirs = LogisticRegression(max_iter=2000).fit(known, data.parts[0].labels).score(new, test.labels)
    assert ours == pytest.approx(theirs, abs=0.08)
    with torch.no_grad():
        directly = classifier(test.tensors(16, "squash")).argmax(-1).numpy()
    assert ours == pytest.approx(np.mean(directly == test.labels), abs=0.011)  # features of another batch size


@pytest.mark.parametrize("train", [{}, {"class_weights": "balanced"}, {"mixing": "weighted", "synthetic_weight": 0.5}])
def test_a_linear_probe_sees_the_middle_of_larger_images(
    data: TrainingSet, images: LabelledImages, tmp_path: Path, train: dict[str, object]
) -> None:
    probe = trainer(tmp_path, "linear_probe", resize=24, **train)
    with_more = data.with_part(images.select(range(60, 80)), "more")
    classifier = probe.train(with_more, 0, "x")
    (file,) = tmp_path.glob("features/*/features.safetensors")
    kept = load_file(file)["features"]
    with torch.no_grad():
        squares = torch.cat([part.tensors(24, "squash") for part in with_more.parts])
        assert torch.allclose(kept, classifier.features(squares[..., 4:-4, 4:-4]), atol=1e-5)


def test_a_frozen_backbone_stays_in_evaluation_mode_and_follows_to_another_precision() -> None:
    classifier = pretrained_cnn(10, input_size=16, freeze="backbone").train().double()
    held = classifier.backbone._held[0]
    assert not any(module.training for module in held.modules())
    assert not any(each.requires_grad for each in held.parameters())
    pixels = torch.rand(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    classifier(pixels).sum().backward()
    assert pixels.grad.abs().sum() > 0  # so that it can be a guide
    assert sorted(name for name, _ in classifier.named_parameters()) == ["head.bias", "head.weight"]


def test_images_are_learnt_in_an_order_by_a_linear_probe_too(data: TrainingSet, tmp_path: Path) -> None:
    order = trainer(tmp_path, "linear_probe").learning_order(data, 0, "x")
    assert order.shape == (60,)
    assert np.unique(order).size > 1
