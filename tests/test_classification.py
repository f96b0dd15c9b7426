"""Classifiers: what they promise as classifiers and as guides, and what a batch is made of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from distdiff.config.instantiation import build

from distdiff.caching.stages import StageCache
from distdiff.classification.data import ClassificationData, ImageTensors
from distdiff.classification.training import Accuracies, ClassAccuracy, ClassifierTrainer, training_set
from distdiff.commands.train import classes_table
from distdiff.console.output import console
from distdiff.data.sources import digits
from distdiff.encoders.guide import GuideEncoder
from distdiff.errors import UserError


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "resnet50"])
def test_every_classifier_gives_logits_and_differentiable_unit_features(name: str) -> None:
    config = compose("run", [f"classifier={name}", "classifier.input_size=64"]).classifier
    classifier = build(config, num_classes=3).eval()
    images = torch.rand(2, 3, 40, 48, requires_grad=True)
    assert classifier(images).shape == (2, 3)
    features = GuideEncoder(classifier)(images)
    assert features.shape == (2, classifier.feature_dim)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    features.sum().backward()  # of one feature alone the gradient may be zero, behind a ReLU
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_real_and_synthetic_images_come_at_the_given_ratio(share: float) -> None:
    pool = digits.load(name="digits", split_seed=0).train
    parts = [pool.select(range(20)), pool.select(range(20, 220))]
    data = ClassificationData(ImageTensors(parts, 32, "squash"), None, 200, 32, 0, synthetic_probability=share)
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
    classifier = build(config.classifier, num_classes=10).eval()
    tested = ClassifierTrainer(config, StageCache(tmp_path)).test(classifier, images)
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
    trainer = ClassifierTrainer(compose("run", []), StageCache(tmp_path))
    with pytest.raises(UserError, match="one class, zero: a classifier needs two"):
        trainer.fingerprint(training_set(only, "squash"), seed=0)
