"""Training seeds under each data seed, and studies that go on from their table of finished runs."""

import copy
import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose_once
from omegaconf import OmegaConf

from distdiff.classification.training import ClassifierTrainer
from distdiff.study.results import StudyResults
from distdiff.study.study import Study
from distdiff.study.training import RowTraining

SMALL = ["study.methods=[original,randaugment_best]", "study.seeds=2", "study.training_seeds=2"]
SMALL += [
    "measure.judge_steps=2",
    "train.steps=3",
    "encoder.guide.steps=1",
    "expansion.factor=1",
    "study.best.augmentations=[default]",
    "study.best.steps=[2,4]",
]


class Ended(Exception):
    """Stands for what ends a process."""


@pytest.fixture
def small(small_run: list[str], image_folder: Path) -> list[str]:
    """Two classes of five images, of which each study seed draws one."""
    data = ["dataset=imagefolder", f"dataset.root='{image_folder}'", "dataset.per_class=1", "classifier.input_size=16"]
    return [*small_run, *data, *SMALL]


def run(small: list[str], place: Path, *overrides: str) -> StudyResults:
    """A study with outputs below `place`, where nothing of another place is found."""
    run_dir = place / "run"
    run_dir.mkdir(parents=True, exist_ok=True)
    study = Study(compose_once("run", [*small, f"paths.output_dir={place}", *overrides]), run_dir)
    return study.run(study.plan())


def numbers(results: StudyResults) -> dict:
    """What a study found, without where its files are and how fast they were made."""
    found = results.as_dict() | {"timing": None, "found": None}
    for row in found["rows"]:
        row.pop("expanded")
        row.pop("images_per_second")
    return found


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Counts how often a study asks for a classifier, and how many it has trained."""
    counts: Counter = Counter()

    def count(name: str) -> None:
        own = getattr(ClassifierTrainer, name)

        def counting(self: ClassifierTrainer, *args, **more):
            counts[name] += 1
            return own(self, *args, **more)

        monkeypatch.setattr(ClassifierTrainer, name, counting)

    count("train_together")
    count("_fit")
    return counts


def test_training_seed_0_is_the_classifier_of_a_study_with_one_and_the_others_are_new(
    small: list[str], tmp_path: Path
) -> None:
    several = run(small, tmp_path)
    single = run(small, tmp_path, "study.training_seeds=1")
    for row, alone in zip(several.rows, single.rows, strict=True):
        assert [run.accuracy for run in row.runs if run.training_seed == 0] == alone.accuracies
        assert [(run.seed, run.training_seed) for run in row.runs] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert [run.correct.mean() for run in row.runs] == pytest.approx([run.accuracy for run in row.runs])
    with open(tmp_path / "run" / "results.csv") as file:  # of the study with one, which ran last
        assert [(line["method"], line["seed"], line["training_seed"]) for line in csv.DictReader(file)][:2] == [
            ("original", "0", "0"),
            ("original", "1", "0"),
        ]
    assert {run.steps for run in several.row("randaugment_best").runs} <= {2, 4}
    trained = (tmp_path / "cache" / "classifiers").glob("*/model.safetensors")
    weights = [
        file.read_bytes() for file in trained
    ]  # the judge; a guide and its row for each seed; others and searched
    assert len(set(weights)) == len(weights) >= 1 + 2 * 2 + 2 * 2 + 2 * 1


def test_a_row_that_its_search_has_just_trained_is_not_said_to_be_found_in_the_cache(
    small: list[str], tmp_path: Path
) -> None:
    for words in ("trained in its search", "found in the cache"):
        found = run(small, tmp_path, "study.seeds=1", "study.training_seeds=1").found
        assert found["train randaugment_best"] == words


def test_a_study_says_how_its_rows_are_trained(small: list[str], tmp_path: Path) -> None:
    keys = ["study.methods=[original]", "train.steps=null", "train.epochs=2", "train.budget=epochs", "study.seeds=1"]
    keys += ["train.selection=best_on_test", "callbacks=early_stopping", "study.training_seeds=1"]
    found = run([item for item in small if not item.startswith("study.best")], tmp_path, *keys)
    assert found.captions()[-1] == "Every row trains for at most 2 epochs of its own images. Steps: original 2."
    assert found.headline()[0].startswith("Accuracies are those of the best check on these very images")


def test_which_image_is_labelled_rightly_is_what_a_plain_loop_finds(small: list[str], tmp_path: Path) -> None:
    study = Study(compose_once("run", [*small, f"paths.output_dir={tmp_path}"]), tmp_path)
    plan = study.plan()
    (trainer,) = study.tools.trainers["original"]
    classifier = trainer.train(plan.seeds[0].data, 0, "train")
    found = trainer.test(classifier, plan.held_out, "squash")
    with torch.no_grad():
        predicted = torch.stack([classifier(image[None])[0] for image in plan.held_out.tensors(32, "squash")]).argmax(
            -1
        )
    assert np.array_equal(found.correct, predicted.numpy() == plan.held_out.labels)
    assert found.accuracy == pytest.approx(np.mean(found.correct))


def test_a_study_that_ended_goes_on_where_it_was_even_without_its_other_files(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: Counter
) -> None:
    table = f"study.table={tmp_path}/runs.csv"
    whole = run(small, tmp_path / "whole")
    own, made = RowTraining.results, []

    def ends(self: RowTraining, *args):
        for result in own(self, *args):
            if len(made) == 3:
                raise Ended
            made.append(result)
            yield result

    with monkeypatch.context() as patch:
        patch.setattr(RowTraining, "results", ends)
        with pytest.raises(Ended):
            run(small, tmp_path / "first", table)
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + 3

    trainings.clear()
    run_after = run(small, tmp_path / "second", table)  # where no classifier and no expansion is in the cache
    assert numbers(run_after) == numbers(whole)
    assert trainings["train_together"] == 1 + 2 + 2 + 2  # the search of the row that was half done is not repeated
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 1 + 2 * 2 * 2

    trainings.clear()
    again = run(small, tmp_path / "third", table)
    assert numbers(again) == numbers(whole)
    assert trainings == {"_fit": 1}  # the judge
    assert not list((tmp_path / "third").glob("expanded/*"))
    assert (tmp_path / "runs.csv").read_text().splitlines() == lines

    more = run(small, tmp_path / "third", table, "study.seeds=3", "study.training_seeds=1")
    assert [run.accuracy for row in more.rows for run in row.runs if run.seed < 2] == [
        run.accuracy for row in whole.rows for run in row.runs if run.training_seed == 0
    ]
    assert (
        trainings["train_together"] == 1 + 2 + 1
    )  # of seed 2: original; two that are tried, the better of which is tested
    added = (tmp_path / "runs.csv").read_text().splitlines()
    assert (added[: len(lines)], len(added)) == (lines, len(lines) + 2)


def test_a_finished_run_is_known_by_all_that_can_change_it_and_by_nothing_else(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["study.methods=[original,randaugment,none,direct]", "study.seeds=1", "study.training_seeds=1"]
    rows = [*rows, f"study.table={tmp_path}/runs.csv", f"paths.output_dir={tmp_path}"]
    best = [item for item in small if not item.startswith("study.best")]
    config = compose_once("run", [*best, *rows])

    def first(*changes: tuple[str, object]) -> dict[str, str]:
        changed = copy.deepcopy(config)
        for key, value in changes:
            OmegaConf.update(changed, key, value)
        (of_seed,) = Study(changed, tmp_path).plan().seeds
        return {name: of_row[0] for name, of_row in of_seed.fingerprints.items()}

    known = first()
    assert len(set(known.values())) == 4
    same = {
        "expansion.batch_size": 3,
        "study.objective": "coverage",
        "study.training_seeds": 2,
        "measure.metrics": ["coverage"],
    }
    assert first(*same.items(), ("expansion.format", "parquet")) == known
    every, made = set(known), set(known) - {"original"}
    for key, value, rows in (
        ("train.steps", 7, every),
        ("train.label_smoothing", 0.1, every),
        ("train.selection", "validation", every),
        ("trainer.gradient_clip_val", 0.5, every),
        ("optimizer.warmup", 0.5, every),
        ("seed", 1, every),
        ("dataset.per_class", 2, every),
        ("study.split", "validation", every),
        ("study.tune_steps", [3, 9], every),
        ("classifier.input_size", 24, every),
        ("train.synthetic_probability", 0.5, made),
        ("expansion.factor", 3, made),
        ("expansion.image_format", "jpeg", made),
        ("measure.judge_steps", 7, made),
        ("measure.metrics", ["coverage"], set()),  # test_measured_again.py: the measures, but not the run, are others
        ("measure.bootstrap", 5, set()),
        ("measure.features", ["pixels"], set()),
        ("generator.num_steps", 7, {"none", "direct"}),
        ("guidance.rho", 2, {"direct"}),
    ):
        found = first((key, value))
        assert {name for name in known if found[name] != known[name]} == rows, key

    with monkeypatch.context() as patch:  # of each network among which a search chooses
        patch.setattr("distdiff.study.identity.weights_version", lambda classifier: {"weights": "2"})
        assert all(found != known[name] for name, found in first().items())
