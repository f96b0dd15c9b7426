"""The settings of rows: which are tried, and that validation images alone choose among them."""

from pathlib import Path

import pytest
from conftest import compose_once
from omegaconf import DictConfig

from distdiff.classification.recipe import Recipe
from distdiff.classification.testing import Accuracies, ClassAccuracy
from distdiff.classification.training import ClassifierTrainer, TrainingSet
from distdiff.data.datasets import load_dataset
from distdiff.errors import UserError
from distdiff.seeds import training_seed
from distdiff.study.rows import rows_of
from distdiff.study.search import best, recipes_of
from distdiff.study.study import Study


def composed(*overrides: str) -> DictConfig:
    return compose_once("run", ["logger=none", "train.steps=40", *overrides])


def settings(name: str, *overrides: str) -> list[tuple[str, str, int]]:
    """The network, augmentation and steps of each recipe of the row `name`."""
    config = composed(*overrides)
    (row,) = (row for row in rows_of(config) if row.name == name)
    recipes = recipes_of(row, config)
    return [(each.classifier["name"], each.augmentation["name"], each.steps) for each in recipes]


ROWS = "study.methods=[original,original_best,none,randaugment_best]"


def test_without_a_search_a_row_has_the_recipe_of_the_keys_alone() -> None:
    config = composed("study.methods=[original,none]")
    assert [recipes_of(row, config) for row in rows_of(config)] == [[Recipe.of(config)]] * 2


def test_tuned_steps_are_those_of_every_row_and_the_best_rows_try_all_settings() -> None:
    tuned = "study.tune_steps=[20,60,20]"
    assert settings("none", ROWS, tuned) == [("small_cnn", "default", 20), ("small_cnn", "default", 60)]
    augmentations = ("default", "affine", "randaugment")
    assert settings("original_best", ROWS) == [("small_cnn", name, n) for name in augmentations for n in (40, 120)]
    assert settings("original_best", ROWS, tuned) == [
        ("small_cnn", name, steps) for name in augmentations for steps in (20, 60)
    ]
    own = ["study.best.classifiers=[resnet18,small_cnn]", "study.best.augmentations=[mixup]", "study.best.steps=[7]"]
    assert settings("randaugment_best", ROWS, *own) == [("resnet18", "mixup", 7), ("small_cnn", "mixup", 7)]
    assert settings("original", ROWS, *own) == [("small_cnn", "default", 40)]


def test_the_best_settings_keep_the_keys_that_are_typed() -> None:
    """Of the network and augmentation that the job chooses, and of others below `options`."""
    typed = ["classifier.input_size=24", "augmentation=randaugment", "augmentation.num_ops=3"]
    config = composed(
        ROWS, *typed, "study.best.augmentations=[randaugment,mixup]", "options.augmentation.mixup.alpha=0.5"
    )
    (row,) = (row for row in rows_of(config) if row.name == "original_best")
    first, *_, last = recipes_of(row, config)
    assert (first.classifier["input_size"], first.augmentation["num_ops"]) == (24, 3)
    assert last.augmentation["alpha"] == 0.5


def test_a_best_row_trains_on_the_images_of_its_row() -> None:
    found = {
        row.name: row for row in rows_of(composed("study.methods=[original_best,randaugment_best,none+energy_best]"))
    }
    assert [row.images for row in found.values()] == ["original", "randaugment", "none+energy"]
    assert [row.expands for row in found.values()] == [False, True, True]
    assert found["randaugment_best"].config.method.policy == "randaugment"
    assert found["none+energy_best"].config.selection.name == "energy"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["study.best.steps=[3]"], "study.best.steps=[3] is not allowed: no row of study.methods ends in _best"),
        ([ROWS, "study.best.steps=[]"], "study.best.steps=[] is not allowed: one or more settings to choose from"),
        (
            [ROWS, "study.best.classifiers=[resnet19]"],
            "study.best.classifiers=resnet19 is not allowed: one of efficientnet_lite0, resnet18",
        ),
        ([ROWS, "study.best.augmentations=[affin]"], "did you mean affine?"),
        ([ROWS, "study.best.steps=[0]"], "study.best.steps[0]=0 is not allowed: a number at least 1"),
        (
            [ROWS, "study.best.classifiers=[resnet18]", "train.resize=40"],
            "train.resize=40 is not allowed with study.best.classifiers=resnet18: at least its input_size=224",
        ),
        (["study.tune_steps=[]"], "study.tune_steps=[] is not allowed"),
        (["study.tune_steps=200"], "study.tune_steps=200 is not allowed: a list"),
        (["study.training_seeds=0"], "study.training_seeds=0 is not allowed: a number at least 1"),
        (["study.table=runs.txt"], "study.table=runs.txt is not allowed: a .csv file"),
        (["study.rows={original_best: [guidance=none]}"], "study.rows.original_best is not allowed: another row has"),
        (["study.methods=[original_bests]"], "study.methods=original_bests is not allowed"),
    ],
)
def test_settings_that_cannot_be_are_one_line(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        composed(*overrides)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_first_of_equally_good_settings_is_taken_and_a_single_one_is_not_tried() -> None:
    recipes = recipes_of(rows_of(config := composed(ROWS))[1], config)
    assert best(recipes, lambda recipe: -abs(recipe.steps - 120)) is recipes[1]
    assert best(recipes, lambda recipe: 0.5) is recipes[0]
    assert best(recipes[:1], lambda recipe: pytest.fail("nothing has to be chosen")) is recipes[0]


def test_training_seed_0_is_the_data_seed_and_no_two_others_are_alike() -> None:
    assert [training_seed(seed, 0) for seed in (0, 7)] == [0, 7]
    found = {training_seed(seed, number) for seed in range(100) for number in range(10)}
    assert len(found) == 1000
    assert all(0 <= seed < 2**32 for seed in found)
    assert training_seed(2**32 - 1, 1) < 2**32


def test_validation_images_choose_and_test_images_have_no_say(small_run, tmp_path: Path, monkeypatch) -> None:
    """Trainings and tests are stood in for: on validation images 60 steps are best, on test images 20."""
    asked: list[tuple[str, int, int]] = []

    def train(self: ClassifierTrainer, data: TrainingSet, seed: int, *_: object) -> tuple[int, int]:
        return self.recipe.steps, seed

    def test(self: ClassifierTrainer, classifier: tuple[int, int], images, fit: str) -> Accuracies:
        if not isinstance(classifier, tuple):  # the judge
            return tested(self, classifier, images, fit)
        split = "test" if len(images) == number_of_test_images else "validation"
        asked.append((split, *classifier))
        good = classifier[0] == {"test": 20, "validation": 60}[split]
        accuracy = 0.9 if good else 0.5
        return Accuracies(accuracy, (ClassAccuracy("0", accuracy, 1),), correct=(good,) * len(images))

    tested = ClassifierTrainer.test

    overrides = ["study.methods=[original,original_best]", "study.tune_steps=[20,60]", "study.seeds=2"]
    more = ["study.training_seeds=2", "measure.judge_steps=1", "study.best.augmentations=[default]"]
    config = compose_once("run", [*small_run, *overrides, *more])
    number_of_test_images = len(load_dataset(config.dataset).test)
    study = Study(config, tmp_path)
    plan = study.plan()
    assert len(plan.validation) != number_of_test_images
    monkeypatch.setattr("distdiff.study.training.ClassifierTrainer.train_together", train)
    monkeypatch.setattr("distdiff.study.training.ClassifierTrainer.test", test)
    results = study.run(plan)
    for row in results.rows:
        assert [run.steps for run in row.runs] == [60] * 4
        assert row.accuracies == [0.5, 0.5]
        assert row.validation_accuracy == 0.9
    seeds = {training_seed(seed, number) for seed in (0, 1) for number in (0, 1)}
    assert {each for each in asked if each[0] == "test"} == {("test", 60, seed) for seed in seeds}
    assert "original trains as was best on validation images: small_cnn, default, 60 steps (2×)." in results.captions()


def test_class_weights_of_a_row_that_do_not_fit_are_refused_before_images_are_made(tmp_path: Path) -> None:
    rows = ["study.methods=[none]", 'study.rows={light: ["train.class_weights=[1,2]"]}', "study.seeds=1"]
    with pytest.raises(UserError, match=r"train\.class_weights=\[1, 2\] is not allowed: 2 weights, .* 10 classes"):
        Study(composed(*rows, f"paths.output_dir={tmp_path}"), tmp_path).plan()


def test_a_search_without_validation_images_is_one_line(image_folder: Path, tmp_path: Path) -> None:
    data = ["dataset=imagefolder", f"dataset.root='{image_folder}'", "dataset.validation_fraction=0"]
    data += ["dataset.per_class=1", "study.seeds=1", f"paths.output_dir={tmp_path}"]
    for wanted in (["study.methods=[original]", "study.tune_steps=[1,2]"], ["study.methods=[original,original_best]"]):
        with pytest.raises(UserError, match=r"no validation image of 2 of 2 classes .*: accuracy needs one of each"):
            Study(composed(*wanted, *data), tmp_path).plan()
    assert Study(composed("study.methods=[original]", *data), tmp_path).plan().validation is None
