"""The loss is torch's cross-entropy: a weight of 2 is an image that comes twice, and `balanced` is scikit-learn's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from distdiff.caching.stages import StageCache
from distdiff.classification.loss import ClassificationLoss, class_weights
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, TrainingSet
from distdiff.data.images import LabelledImages
from distdiff.data.soft_labels import SoftLabels
from distdiff.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 3, generator=GENERATOR, dtype=torch.float64)
TARGETS = {
    "labels": torch.tensor([0, 1, 2, 1, 0, 0]),
    "probabilities": torch.rand(6, 3, generator=GENERATOR, dtype=torch.float64).softmax(1),
}
WEIGHTS = (None, torch.tensor([0.2, 1.0, 3.0]))


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", WEIGHTS, ids=["equal", "weighted"])
def test_an_image_of_weight_2_counts_as_one_that_comes_twice(targets: str, smoothing: float, weights) -> None:
    loss, given = ClassificationLoss(smoothing, weights), TARGETS[targets]
    plain = {"weight": None if weights is None else weights.double(), "label_smoothing": smoothing}
    torch.testing.assert_close(loss(LOGITS, given), F.cross_entropy(LOGITS, given, **plain))
    twice = [0, 1, 1, 2, 3, 4, 4, 5]
    counts = torch.tensor([1.0, 2, 1, 1, 2, 1])
    expected = F.cross_entropy(LOGITS[twice], given[twice], **plain)
    torch.testing.assert_close(loss(LOGITS, given, counts), expected)
    torch.testing.assert_close(loss(LOGITS, given, counts * 0.01), expected)  # only their ratio counts


def images(counts: list[int]) -> LabelledImages:
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple(f"class {number}" for number in range(len(counts)))
    keys = tuple(map(str, range(len(labels))))
    return LabelledImages("some", names, labels, keys, read=None, indices=np.arange(len(labels)))


def recipe_of(*overrides: str) -> Recipe:
    return Recipe.of(compose("train", ["train.class_weights=balanced", *overrides]))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    parts = (images([3, 1, 6]), images([2, 8, 10]))
    labels = np.concatenate([part.labels for part in parts])
    found = class_weights(recipe_of("train.mixing=concatenate"), parts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # With a share of 0.7 of synthetic images, a real image counts (0.3 / 10) / (0.7 / 20) as much as a synthetic one.
    shares = np.concatenate([np.full(10, 0.3 / 10), np.full(20, 0.7 / 20)])
    found = class_weights(recipe_of("train.synthetic_probability=0.7"), parts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels, sample_weight=shares)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert class_weights(recipe_of("train.class_weights=null"), parts) is None


def test_a_soft_label_counts_for_all_its_classes() -> None:
    soft = SoftLabels.of([((0, 0.5), (1, 0.5)), ((0, 1.0),), ((1, 0.75), (0, 0.25))])
    found = class_weights(recipe_of("train.mixing=concatenate"), (replace(images([2, 1]), soft=soft),))
    np.testing.assert_allclose(found, [3 / (2 * 1.75), 3 / (2 * 1.25)], rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("[1,2]", "train.class_weights=[1, 2] is not allowed: 2 weights, and dataset some has 3 classes"),
        ("balanced", "no image of class class 1 is drawn from dataset some, so its weight would be infinite"),
    ],
)
def test_weights_that_do_not_fit_the_classes_are_one_line_before_anything_trains(given, words, tmp_path: Path) -> None:
    config = compose("train", [f"train.class_weights={given}", "logger=none"])
    trainer = ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(tmp_path))
    with pytest.raises(UserError) as caught:
        trainer.fingerprint(TrainingSet((images([3, 0, 2]),), ("some",), "squash"), 0)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
