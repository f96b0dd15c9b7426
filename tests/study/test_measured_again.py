"""Runs in a study's table that were measured by other metrics: neither their images nor their training is repeated."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, compose, compose_once
from omegaconf import OmegaConf

from distdiff.caching.fingerprint import fingerprint
from distdiff.classification.training import ClassifierTrainer
from distdiff.expansion.job import ExpansionJob
from distdiff.keys import option_identity
from distdiff.study.identity import FIRST_METRICS, kept_measures, measured_by
from distdiff.study.results import StudyResults
from distdiff.study.runs import RunResult, mean_of
from distdiff.study.study import Study
from distdiff.study.table import COLUMNS

SMALL = ["study.methods=[original,randaugment]", "study.seeds=1", "measure.judge_steps=2", "train.steps=3"]
SMALL += ["encoder.guide.steps=1", "expansion.factor=1", "dataset.per_class=2", "classifier.input_size=16"]


@pytest.fixture
def small(small_run: list[str], image_folder: Path, tmp_path: Path) -> list[str]:
    data = ["dataset=imagefolder", f"dataset.root='{image_folder}'", f"study.table={tmp_path}/runs.csv"]
    return [*small_run, *SMALL, *data, f"paths.output_dir={tmp_path}"]


def run(small: list[str], place: Path, *overrides: str) -> StudyResults:
    run_dir = place / "run"
    run_dir.mkdir(exist_ok=True)
    study = Study(compose_once("run", [*small, *overrides]), run_dir)
    return study.run(study.plan())


def as_of_an_earlier_version(table: Path) -> list[dict[str, str]]:
    """Rewrites the lines of a table as a version wrote them that knew three metrics only."""
    with open(table, newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        measures = json.loads(line["measures"])
        line["measures"] = json.dumps({name: value for name, value in measures.items() if name in FIRST_METRICS})
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return lines


def test_lines_of_an_earlier_version_are_found_and_measured_again_while_the_images_are_there(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = run(small, tmp_path)
    as_of_an_earlier_version(tmp_path / "runs.csv")

    def refused(*args, **more) -> None:
        raise AssertionError("nothing is to be made or trained")

    monkeypatch.setattr(ExpansionJob, "_make", refused)
    monkeypatch.setattr(ClassifierTrainer, "train_together", refused)
    again = run(small, tmp_path)
    row, other = new.row("randaugment"), again.row("randaugment")
    assert row.accuracies == other.accuracies
    assert set(row.runs[0].measures) > {*FIRST_METRICS, "kernel_distance", "near_copies"}
    assert other.runs[0].measures == pytest.approx(row.runs[0].measures)
    assert other.views.keys() == {"judge"}
    text = json.loads((tmp_path / "run/results.json").read_text())["rows"][1]
    assert text["measures"]["judge"]["training"]["values"]["coverage"] == text["coverage"]
    assert set(text["measures"]["judge"]) == {"training", "held_out"}
    capsys.readouterr()

    shutil.rmtree(tmp_path / "expanded")
    gone = run(small, tmp_path)
    (of_gone,) = gone.row("randaugment").runs
    assert of_gone.measures == {name: row.runs[0].measures[name] for name in FIRST_METRICS}
    assert "1 run of " in (said := " ".join(capsys.readouterr().out.split()))
    assert "lack some measures of now, and their images are gone" in said
    text = json.loads((tmp_path / "run/results.json").read_text())["rows"][1]
    assert (text["kernel_distance"], "measures" in text) == (None, False)


def test_a_run_that_was_measured_as_now_is_not_measured_again(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(small, tmp_path).row("randaugment").runs[0]
    monkeypatch.setattr("distdiff.study.data_seed.measured", lambda *args: 1 / 0)
    after = run(small, tmp_path).row("randaugment").runs[0]
    assert after.measured_by == before.measured_by is not None
    assert (after.views, after.measures) == (before.views, before.measures)


def test_the_fingerprint_is_that_of_the_earlier_version_whatever_is_measured(small: list[str], tmp_path: Path) -> None:
    """The ingredient of metrics is what the defaults of then gave: the identities of three options, as in their files."""
    files = {name: OmegaConf.load(ROOT / f"conf/metric/{name}.yaml") for name in FIRST_METRICS}
    assert {name: option_identity(option) for name, option in files.items()} == FIRST_METRICS
    assert fingerprint(FIRST_METRICS) == "a070c37d78a0feca"
    found = []
    for metrics in ("[coverage]", "[diversity,near_copies]"):
        study = Study(compose("run", [*small, f"measure.metrics={metrics}", "measure.bootstrap=3"]), tmp_path)
        found.append(study.plan().seeds[0].fingerprints["randaugment"])
    assert found[0] == found[1]


def test_what_could_have_another_value_now_is_not_kept() -> None:
    measures = {"coverage": 0.5, "frechet_distance": 3.0, "energy_after": 1.0, "recall": 0.25}
    old = RunResult(seed=0, accuracy=0.5, num_train=2, measures=measures)
    now = compose("run", [])
    assert kept_measures(now, old).keys() == {"coverage", "frechet_distance", "energy_after"}
    wider = compose("run", ["options.metric.coverage.num_neighbours=3"])
    assert kept_measures(wider, old).keys() == {"frechet_distance", "energy_after"}
    pixels = compose("run", ["measure.features=[pixels]"])
    assert kept_measures(pixels, old).keys() == {"energy_after"}
    assert kept_measures(now, replace(old, measured_by="of other metrics")).keys() == {"energy_after"}
    assert kept_measures(now, replace(old, measured_by=measured_by(now))) == measures


def test_means_over_seeds_leave_out_what_a_seed_lacks() -> None:
    assert mean_of([{"a": [1.0, 2.0], "b": None}, {"a": [3.0, 4.0], "b": None}]) == {"a": [2.0, 3.0], "b": None}
    assert mean_of([]) is None
