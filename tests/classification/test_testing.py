"""What is measured of a tested classifier, against scikit-learn and a plain loop."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose_once
from omegaconf import OmegaConf
from scripts import run_here
from sklearn.metrics import confusion_matrix, f1_score, recall_score
from torch import nn

from distdiff.classification.augmentations import affine, default, randaugment
from distdiff.classification.mixing import cutmix, mixup
from distdiff.classification.module import ClassifierTraining
from distdiff.classification.networks import small_cnn
from distdiff.classification.recipe import Recipe
from distdiff.classification.testing import BINS, TestMetrics
from distdiff.commands.train import check_classes, say_other_sources
from distdiff.data.sources import digits
from distdiff.errors import UserError
from distdiff.store.filtering import RowFilter

NAMES = ("a", "b", "c", "d")
QUICK = ["logger=none", "train.steps=3", "train.batch_size=4", "classifier.input_size=8"]


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    error = 0.0
    for number in range(BINS):
        inside = (confidence > number / BINS) & (confidence <= (number + 1) / BINS)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("scale", [0.2, 4.0])  # logits between 0 and 1, which are no probabilities, and others
def test_measures_are_those_of_scikit_learn(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (90,), generator=generator)
    logits = scale * (torch.rand(90, 4, generator=generator) + nn.functional.one_hot(labels, 4))
    logits[::3] = logits[::3].flip(1)
    metrics = TestMetrics(4)
    for batch in torch.arange(90).split(40):
        metrics.update(logits[batch], labels[batch])
    found = metrics.result(NAMES)
    truth, predicted = labels.numpy(), logits.argmax(1).numpy()
    assert found.accuracy == pytest.approx((truth == predicted).mean(), abs=1e-6)
    assert found.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-6)
    assert np.array_equal(found.confusion, confusion_matrix(truth, predicted))
    recalls = recall_score(truth, predicted, average=None)
    assert [each.accuracy for each in found.classes] == pytest.approx(recalls, abs=1e-6)
    assert [each.num_test for each in found.classes] == np.bincount(truth).tolist()
    assert found.worst.class_name == NAMES[recalls.argmin()]
    assert list(found.correct) == (truth == predicted).tolist()
    probabilities = logits.softmax(-1).double().numpy()
    assert found.calibration_error == pytest.approx(expected_calibration_error(probabilities, truth), abs=1e-5)


@pytest.mark.parametrize("augmentation", [default, affine, randaugment, mixup, cutmix])
def test_the_classifiers_parameters_are_all_that_is_trained(augmentation) -> None:
    """DDP waits for the gradient of every other one."""
    keys = {"num_ops": 2, "magnitude": 9} if augmentation is randaugment else {"horizontal_flip": True}
    keys |= {"alpha": 1.0} if augmentation in (mixup, cutmix) else {}
    network = small_cnn(3, input_size=8)
    module = ClassifierTraining(network, augmentation(**keys), Recipe.of(compose_once("train", QUICK)))
    trained = {id(each) for each in module.parameters() if each.requires_grad}
    assert trained == {id(each) for each in network.parameters()}


@pytest.mark.parametrize("selection", ["validation", "best_on_test"])
def test_train_writes_what_it_measured_and_how_the_weights_were_chosen(tmp_path: Path, selection: str, capsys) -> None:
    typed = [*QUICK, f"paths.output_dir={tmp_path}", f"train.selection={selection}"]
    ended = run_here("train", typed, capsys)
    assert ended.status == 0, ended.err
    (file,) = tmp_path.glob("train/*/results.json")
    results = json.loads(file.read_text())
    assert (results["split"], results["selection"]) == ("test", selection)
    assert len(results["correct"]) == 600 == np.sum(results["confusion_matrix"])
    assert results["accuracy"] == pytest.approx(np.mean(results["correct"]))
    assert results["accuracy"] == pytest.approx(np.trace(results["confusion_matrix"]) / 600)
    assert results["worst_class"] == min(results["classes"], key=lambda each: each["accuracy"])
    assert {"macro_f1", "calibration_error", "num_train", "seed"} <= results.keys()
    optimistic = "the best of all checks on these very images" in ended.out
    assert optimistic == (selection == "best_on_test")


def test_a_file_that_asks_for_a_training_is_told_if_nothing_is_trained(tmp_path: Path, capsys) -> None:
    typed = [*QUICK, f"paths.output_dir={tmp_path}", "train.split=validation", "callbacks=checkpoint"]
    assert "nothing was trained" not in run_here("train", typed, capsys).out
    again = run_here("train", typed, capsys).out
    assert "nothing was trained, and callbacks=checkpoint has no effect: the classifier was found in the cache" in again
    assert "validation images" in again


def test_expanded_sets_without_a_class_are_refused_or_named_if_a_condition_leaves_none(capsys) -> None:
    found = digits.load(name="digits", split_seed=0).train
    without = found.select(np.flatnonzero(~np.isin(found.labels, [3, 7]))[:50])
    with pytest.raises(
        UserError, match=r"^train.expanded=x is not allowed: it has no image of 2 of 10 classes \(3, 7\)"
    ):
        check_classes([without, without], "x", None)
    check_classes([without], "x", RowFilter.of("train.where", "energy_after < 1"))
    words = "train.where leaves no image of 2 of 10 classes (3, 7) of train.expanded, which get real images alone"
    assert words in " ".join(capsys.readouterr().out.split())
    check_classes([without, found], "x", None)
    check_classes([], None, None)


def test_copies_of_real_images_that_are_not_trained_on_are_counted(capsys) -> None:
    pool = digits.load(name="digits", split_seed=0).train
    names = [f"{pool.class_names[label]}/{key}" for label, key in zip(pool.labels, pool.keys, strict=True)]
    config = OmegaConf.create({"dataset": {"per_class": 2}, "seed": 7})
    copies = replace(pool.select(np.arange(6)), sources=tuple((name,) for name in names[:6]))
    mixed = replace(pool.select(np.arange(2)), sources=((names[0], names[1]), (names[1], names[9])))
    say_other_sources([copies, mixed], pool.select(np.arange(6)), config)
    assert " ".join(capsys.readouterr().out.split()) == (
        "warning: 1 of 8 expanded images were made from real images that are not among the 6 trained on "
        "(dataset.per_class=2, seed=7)"
    )
    say_other_sources([copies, mixed], pool, config)
    say_other_sources([], pool, config)
    assert not capsys.readouterr().out
