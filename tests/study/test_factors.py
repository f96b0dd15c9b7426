"""`study.factors`: a row for each factor, all of them on parts of one expansion."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import compose, compose_once
from scipy import stats
from scripts import run_here
from study_results import results

from distdiff.classification.training import ClassifierTrainer
from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.methods.img2img import Img2Img
from distdiff.report.curves import scaling_figure
from distdiff.store.reading import read_expanded
from distdiff.study.results import StudyResults
from distdiff.study.rows import rows_of
from distdiff.study.study import Study

TRAINED = ["study.seeds=1", "measure.judge_steps=2", "train.steps=3", "encoder.guide.steps=1", "measure.metrics=[]"]


@pytest.fixture
def small(small_run: list[str], image_folder: Path) -> list[str]:
    """Two classes of five images, of which the study draws two each."""
    data = ["dataset=imagefolder", f"dataset.root='{image_folder}'", "dataset.per_class=2", "classifier.input_size=16"]
    return [*(item for item in small_run if not item.startswith("expansion.factor")), *data, *TRAINED]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each expansion has made, in the order in which they began."""
    counts: list[int] = []
    own = ExpansionJob._make

    def make(self: ExpansionJob, plan, missing: np.ndarray, *args) -> None:
        counts.append(len(missing))
        own(self, plan, missing, *args)

    monkeypatch.setattr(ExpansionJob, "_make", make)
    return counts


def run(small: list[str], place: Path, *overrides: str) -> tuple[StudyResults, dict[str, dict[str, bytes]]]:
    """A study with outputs below `place`, and the files of the images that its rows train on, by row and key."""
    run_dir = place / "run"
    run_dir.mkdir(parents=True, exist_ok=True)
    study = Study(compose_once("run", [*small, f"paths.output_dir={place}", *overrides]), run_dir)
    plan = study.plan()
    found = study.run(plan)
    (of_seed,) = plan.seeds
    sets = {name: read_expanded(job.path, None, job.contents) for name, job in of_seed.jobs.items() if job.is_done()}
    files = {name: {key: each.file(index).read() for index, key in enumerate(each.keys)} for name, each in sets.items()}
    return found, files


def test_a_study_shows_its_measurer_once_it_has_run(small: list[str], tmp_path: Path) -> None:
    study = Study(compose_once("run", [*small, "study.methods=[original]", f"paths.output_dir={tmp_path}"]), tmp_path)
    assert study.measurer is None
    study.run(study.plan())
    found = study.measurer.look(study.measurer.images)
    assert found.distance.tolist() == [0] * len(study.measurer.images)  # each real image is among the real images


def accuracies(found: StudyResults) -> dict[str, list[float]]:
    return {row.method: row.accuracies for row in found.rows}


def test_each_factor_has_the_images_and_accuracies_of_a_study_of_its_own_and_all_are_made_once(
    small: list[str], tmp_path: Path, made: list[int]
) -> None:
    rows = "study.methods=[original,none,randaugment_best]"
    best = ["study.best.augmentations=[default]", "study.best.steps=[2,4]", "study.training_seeds=2"]
    scaled, files = run(small, tmp_path / "scaled", rows, *best, "study.factors=[3,1]")
    assert made == [12, 12]  # `none` and `randaugment`, three copies of each of four sources
    names = [row.method for row in scaled.rows]
    assert names == ["original", "none@3", "none@1", "randaugment_best@3", "randaugment_best@1"]
    assert [row.runs[0].num_train for row in scaled.rows] == [4, 16, 8, 16, 8]
    alone, own = run(small, tmp_path / "alone", rows, *best, "expansion.factor=1")
    assert {name: files[f"{name}@1"] for name in own} == own
    assert {len(each) for each in own.values()} == {4}
    for row in alone.rows:
        name = row.method if row.method == "original" else f"{row.method}@1"
        same = [(run.seed, run.training_seed, run.accuracy, run.steps) for run in row.runs]
        assert [(run.seed, run.training_seed, run.accuracy, run.steps) for run in scaled.row(name).runs] == same
    folders = {path.name for path in (tmp_path / "scaled/run/expanded").iterdir()}
    assert folders == {"none-seed0", "randaugment-seed0"}


def test_a_selection_keeps_for_each_factor_what_it_keeps_in_a_study_of_that_factor(
    small: list[str], tmp_path: Path, made: list[int]
) -> None:
    rows = "study.methods=[none+energy]"
    scaled, files = run(small, tmp_path / "scaled", rows, "study.factors=[1,2]")
    assert sum(made) == 16  # two candidates for each image of the larger factor
    links = {path.name: path.resolve() for path in (tmp_path / "scaled/run/expanded").iterdir()}
    assert set(links) == {"none+energy@1-seed0", "none+energy@2-seed0"}
    assert len(set(links.values())) == 2
    alone, own = run(small, tmp_path / "alone", rows, "expansion.factor=1")
    assert files["none+energy@1"] == own["none+energy"]
    assert accuracies(scaled)["none+energy@1"] == accuracies(alone)["none+energy"]


def test_a_study_of_further_factors_goes_on_from_its_table_and_makes_no_more_than_it_needs(
    small: list[str], tmp_path: Path, made: list[int]
) -> None:
    rows, table = "study.methods=[original,none]", f"study.table={tmp_path}/runs.csv"
    alone, _ = run(small, tmp_path / "one", rows, table, "expansion.factor=3")
    made.clear()
    scaled, _ = run(small, tmp_path / "two", rows, table, "study.factors=[1,2,3]")
    assert made == [8]  # factor 3 is in the table, so the largest that is lacking is 2
    assert accuracies(scaled)["none@3"] == accuracies(alone)["none"]
    with open(tmp_path / "runs.csv", newline="") as file:
        assert [line["method"] for line in csv.DictReader(file)] == ["original", "none", "none@1", "none@2"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["study.factors=[]"], "study.factors=[] is not allowed"),
        (["study.factors=[0,2]"], "study.factors"),
        (["study.factors=[1,2]", "expansion.factor=3"], "study.factors says how many copies the rows have"),
        (["study.factors=[1,2]", "study.methods=[original,original_best]"], "no row of study.methods adds images"),
        (
            ["study.factors=[1,2]", "study.rows={more: [expansion.factor=3]}"],
            "study.factors gives every row its factors",
        ),
    ],
)
def test_factors_that_cannot_be_meant_are_one_line(typed: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("run", typed)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_copies_that_are_made_together_have_no_smaller_factors(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Img2Img, "group_size", 2)
    study = Study(compose_once("run", [*small, "study.methods=[none]", "study.factors=[1,2]"]), tmp_path)
    with pytest.raises(UserError, match=r"study.factors=\[1, 2\] is not allowed with the row none: [^\n]*together"):
        study.plan()


def test_further_rows_have_a_row_for_each_factor_too_and_repeated_factors_count_once() -> None:
    typed = [
        "study.methods=[original]",
        "study.rows={strong: [guidance=direct,guidance.rho=9]}",
        "study.factors=[2,5,2]",
    ]
    rows = {row.name: row for row in rows_of(compose("run", typed))}
    assert list(rows) == ["original", "strong@2", "strong@5"]
    assert [(row.config.expansion.factor, row.config.guidance.get("rho")) for row in list(rows.values())[1:]] == [
        (2, 9),
        (5, 9),
    ]


def test_a_study_puts_each_selection_into_a_folder_of_its_own(small: list[str], tmp_path: Path) -> None:
    typed = ["study.factors=[1,2]", "study.methods=[none,none+energy]", f"expansion.output_dir={tmp_path}/sets"]
    study = Study(compose("run", [*small, *typed]), tmp_path)
    (of_seed,) = study.plan().seeds
    assert [job.path.name for job in of_seed.jobs.values()] == [
        "none-seed0",
        "none-seed0",
        "none+energy@1-seed0",
        "none+energy@2-seed0",
    ]


@pytest.mark.parametrize(
    ("swept", "images", "trained"),
    [
        ("classifier=small_cnn,small_resnet", [4], 1 + 1 + 2 * 2),  # the judge, the guide, and two rows twice
        ("dataset.per_class=1,2", [4, 8], 1 + 2 + 3 * 2),  # the judge, a guide and three rows for each number of images
        ("expansion.factor=1,2", [4, 4], 1 + 1 + 1 + 2),  # the judge, the guide, one row once and one for each factor
    ],
)
def test_a_multirun_makes_nothing_twice(
    swept: str,
    images: list[int],
    trained: int,
    small: list[str],
    tmp_path: Path,
    made: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fits: list[str] = []
    own = ClassifierTrainer._fit

    def fit(self: ClassifierTrainer, *args):
        fits.append(self.recipe.classifier["name"])
        return own(self, *args)

    monkeypatch.setattr(ClassifierTrainer, "_fit", fit)
    factors = {"classifier": ["expansion.factor=1"], "dataset": ["study.factors=[1,2]"], "expansion": []}
    once = factors[swept.partition(".")[0].partition("=")[0]]
    typed = [*(item for item in small if item.split("=")[0] != swept.split("=")[0]), *once]
    ended = run_here("run", ["-m", swept, *typed, "study.methods=[original,none]", "study.split=test"], capsys)
    assert ended.status == 0, ended.out + ended.err
    assert made == images
    assert len(fits) == trained, fits
    pages = list((tmp_path / "outputs/run/multirun").glob("*/*/report.html"))
    assert ["Accuracy by factor" in page.read_text() for page in pages] == [once == factors["dataset"]] * 2
    assert [page.with_name("scaling.svg").is_file() for page in pages] == [once == factors["dataset"]] * 2


SCALED = {
    "original": [0.5, 0.6, 0.7],
    "none@1": [0.6, 0.6, 0.8],
    "none@10": [0.7, 0.9, 0.9],
    "direct@1": [0.7, 0.6, 0.8],
    "direct@10": [0.8, 0.9, 0.9],
}


def test_rows_are_compared_with_the_unguided_row_of_the_same_factor_and_the_largest_is_the_headline(
    tmp_path: Path,
) -> None:
    found = results(SCALED, chosen="direct@10")
    assert list(found.comparisons) == [
        *((name, "original") for name in list(SCALED)[1:]),
        ("direct@1", "none@1"),
        ("direct@10", "none@10"),
    ]
    assert [line.partition(":")[0].split(" did")[0] for line in found.headline()] == [
        "Expansion with 'direct@10'",
        "Guidance 'direct@10'",
    ]
    assert found.summary()["difference_to_none"] == pytest.approx(0.1 / 3)
    found.write(tmp_path)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["method"], row["factor"]) for row in rows] == [
        ("original", None),
        ("none@1", 1),
        ("none@10", 10),
        ("direct@1", 1),
        ("direct@10", 10),
    ]
    with open(tmp_path / "results.csv", newline="") as file:
        assert [line["factor"] for line in csv.DictReader(file)] == [
            factor for factor in ["", "1", "10", "1", "10"] for _ in range(3)
        ]


def test_the_scaling_curve_shows_each_mean_with_its_interval() -> None:
    figure = scaling_figure(results(SCALED, chosen="direct@10"))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "10"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["original", "none", "direct"]
    for container, name in zip(axes.containers, ("none", "direct"), strict=True):
        (bars,) = container.lines[2]
        for segment, factor in zip(bars.get_segments(), (1, 10), strict=True):
            values = SCALED[f"{name}@{factor}"]
            expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
            assert segment[:, 1] == pytest.approx(expected)
            assert segment[0, 0] == pytest.approx(factor, rel=0.05)
