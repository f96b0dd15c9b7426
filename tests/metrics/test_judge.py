"""The judge: how long it trains, on which images, and that it looks at other features than those that guide."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import compose, compose_once
from omegaconf import OmegaConf

from distdiff.caching.stages import StageCache
from distdiff.classification.training import ClassifierTrainer, TrainingSet, training_set
from distdiff.commands.measure import refuse_features_that_guided
from distdiff.data.images import LabelledImages
from distdiff.data.sources import digits
from distdiff.encoders.guide import guide_recipe
from distdiff.errors import UserError
from distdiff.metrics import judge as judging
from distdiff.metrics.judge import SEED, VALIDATION, JudgeTrainer, judge_recipe, step_counts


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    return digits.load(name="digits", split_seed=0).train


@pytest.fixture(scope="module")
def pool(images: LabelledImages) -> TrainingSet:
    return training_set(images.select(range(200)), "squash")


def judges(tmp_path: Path, *overrides: str) -> JudgeTrainer:
    return JudgeTrainer(compose_once("measure", list(overrides)), StageCache(tmp_path))


class Accuracies:
    """Stands in for training: the classifier of n steps has the n-th of `values` on the images it is tested on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
        self.values = iter(values)
        self.trained: list[int] = []
        self.tested: list[LabelledImages] = []
        self.data: list[TrainingSet] = []
        monkeypatch.setattr(ClassifierTrainer, "train", lambda own, data, seed, title: self.train(own, data, seed))
        monkeypatch.setattr(ClassifierTrainer, "accuracy", lambda own, trained, images, fit: self.test(images))

    def train(self, own: ClassifierTrainer, data: TrainingSet, seed: int) -> torch.nn.Module:
        assert seed == SEED
        self.trained.append(own.recipe.steps)
        self.data.append(data)
        classifier = torch.nn.Identity()
        classifier.input_size, classifier.steps = 32, own.recipe.steps
        return classifier

    def test(self, images: LabelledImages) -> float:
        self.tested.append(images)
        return next(self.values)


@pytest.mark.parametrize(
    ("values", "trained", "chosen"),
    [
        ((0.5, 0.7, 0.7), [100, 200, 400], 200),  # of two that are equally good, the shorter training
        ((0.5, 0.7, 0.6), [100, 200, 400], 200),
        ((0.0, 0.0), [100, 200], 100),
        ((0.1, 0.2, 0.3, 0.4, 0.5), [100, 200, 400, 800, 1000], 1000),  # rises until the most steps are reached
    ],
)
def test_the_judge_trains_until_its_validation_accuracy_stops_rising(
    pool: TrainingSet, tmp_path: Path, monkeypatch, values: tuple[float, ...], trained: list[int], chosen: int
) -> None:
    seen = Accuracies(monkeypatch, *values)
    judge = judges(tmp_path, "measure.judge_steps=1000").train(pool)
    assert seen.trained == trained
    assert judge.classifier.steps == chosen


def test_the_judges_validation_images_are_a_part_of_the_pool_on_which_it_does_not_train(
    pool: TrainingSet, tmp_path: Path, monkeypatch
) -> None:
    seen = Accuracies(monkeypatch, 0.5, 0.5)
    judges(tmp_path).train(pool)
    (trained,), tested = seen.data[0].parts, seen.tested[0]
    whole = sorted(pool.parts[0].indices)
    assert sorted([*trained.indices, *tested.indices]) == whole
    counts = np.bincount(tested.labels, minlength=10)
    assert (abs(counts - VALIDATION * np.bincount(pool.parts[0].labels, minlength=10)) <= 0.5).all()


def test_a_pool_without_images_to_validate_on_is_trained_on_once(
    images: LabelledImages, tmp_path: Path, monkeypatch
) -> None:
    seen = Accuracies(monkeypatch)
    one_each = [int(np.flatnonzero(images.labels == label)[0]) for label in range(10)]
    assert judges(tmp_path).train(training_set(images.select(one_each), "squash")).classifier.steps == 100
    assert seen.trained == [100]


def test_the_judge_is_the_same_each_time_and_is_found_in_the_cache(pool: TrainingSet, tmp_path: Path) -> None:
    keys = ["measure.judge_classifier=small_cnn", "measure.judge_steps=6"]
    first, again = judges(tmp_path / "a", *keys), judges(tmp_path / "b", *keys)
    assert not first.is_ready(pool)
    weights = [trainer.train(pool).classifier.state_dict() for trainer in (first, again)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert first.is_ready(pool)
    assert first.classifiers.cache.made == 1
    first.train(pool)
    assert first.classifiers.cache.made == 1


def test_the_judge_runs_on_the_device_of_the_trainer_keys(pool: TrainingSet, tmp_path: Path, monkeypatch) -> None:
    Accuracies(monkeypatch, 0.5, 0.5)
    trainer, asked = judges(tmp_path), []
    monkeypatch.setattr(judging, "trainer_device", lambda keys: asked.append(keys) or torch.device("meta"))
    assert trainer.train(pool).device == torch.device("meta")
    assert asked == [trainer.classifiers.trainer_config]


@pytest.mark.parametrize(
    "change",
    ["classifier=resnet18", "train.steps=7", "optimizer.learning_rate=0.1", "augmentation=randaugment", "encoder=clip"],
)
def test_no_key_of_the_downstream_classifier_or_of_the_encoder_changes_the_judge(change: str) -> None:
    assert judge_recipe(compose("run", [change])) == judge_recipe(compose_once("run", []))


def test_run_and_measure_have_the_same_judge() -> None:
    assert judge_recipe(compose_once("run", [])) == judge_recipe(compose_once("measure", []))


def test_the_judge_differs_from_the_guide_in_its_network_and_in_its_seed() -> None:
    config = compose_once("run", [])
    guide = guide_recipe(OmegaConf.to_object(config.encoder.guide), config.options)
    assert judge_recipe(config).classifier["_target_"] != guide.classifier["_target_"]
    assert SEED not in range(1000)


def test_step_counts_double_up_to_the_most() -> None:
    assert [list(step_counts(most)) for most in (1, 100, 101, 400)] == [[1], [100], [100, 101], [100, 200, 400]]


PRETRAINED = ["measure.judge_classifier=efficientnet_lite0"]
LITE0 = "options.classifier.efficientnet_lite0"


@pytest.mark.parametrize(
    ("guide", "refused"),
    [
        (["encoder=efficientnet_lite0"], True),
        (["encoder.guide.classifier=efficientnet_lite0"], True),
        ([], False),
        (["encoder.guide.classifier=efficientnet_lite0", f"{LITE0}.pretrained=false"], False),
    ],
)
def test_the_judge_never_sees_the_features_that_guide(monkeypatch, guide: list[str], refused: bool) -> None:
    monkeypatch.setattr("distdiff.classification.config.find_spec", lambda name: object())  # as if it were installed
    if not refused:
        compose("run", [*PRETRAINED, *guide])
        return
    with pytest.raises(
        UserError, match=r"^measure\.judge_classifier=efficientnet_lite0 is not allowed: its pretrained"
    ):
        compose("run", [*PRETRAINED, *guide])


@pytest.mark.parametrize(("guided_by", "refused"), [("fingerprint of its features", True), ("another", False)])
def test_measure_refuses_a_judge_whose_features_guided_the_images(monkeypatch, guided_by: str, refused: bool) -> None:
    monkeypatch.setattr("distdiff.classification.config.find_spec", lambda name: name)  # as if it were installed
    monkeypatch.setattr("distdiff.encoders.efficientnet_lite0.lite0_identity", lambda: "fingerprint of its features")
    made = SimpleNamespace(manifest=lambda: {"ingredients": {"encoder": guided_by}})
    monkeypatch.setattr("distdiff.commands.measure.finished_directory", lambda path: made)
    config = compose("measure", [*PRETRAINED, "measure.expanded=somewhere"])
    with pytest.raises(UserError, match="its features guided these images") if refused else nullcontext():
        refuse_features_that_guided(config)
