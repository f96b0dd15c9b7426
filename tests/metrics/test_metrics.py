"""Measures, against closed forms and scipy."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from conftest import ROOT, compose
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from scipy.linalg import sqrtm
from study_results import results
from torch import nn

from distdiff.commands.expand import expand
from distdiff.commands.export import export
from distdiff.commands.measure import measure
from distdiff.commands.run import run
from distdiff.data.sources import digits
from distdiff.errors import UserError
from distdiff.grids import captioned
from distdiff.keys.suggesting import in_quotes
from distdiff.metrics.base import Features
from distdiff.metrics.coverage import Coverage
from distdiff.metrics.frechet_distance import FrechetDistance
from distdiff.metrics.judge import Judge
from distdiff.metrics.label_consistency import LabelConsistency
from distdiff.metrics.measuring import Measurer, load_metrics
from distdiff.metrics.reference import reference
from distdiff.report.html import write_report
from distdiff.report.table import accuracy_rows, measure_rows
from distdiff.study.measures import SCORES
from distdiff.study.results import COLUMNS, measures_of
from distdiff.study.study import Study


def seen(points: np.ndarray | torch.Tensor) -> Features:
    """Points as features, all of class 0, all said to be so."""
    classes = torch.zeros(len(points), dtype=torch.long)
    return Features(torch.as_tensor(points), classes, classes)


def test_frechet_distance_is_its_closed_form() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 5))
    generated = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + 1
    means = ((real.mean(0) - generated.mean(0)) ** 2).sum()
    first, second = np.cov(real.T), np.cov(generated.T)
    expected = means + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert FrechetDistance()(seen(real), seen(generated)) == pytest.approx(expected, rel=1e-6)


def test_coverage_is_the_fraction_of_real_points_reached() -> None:
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(50, 3)), rng.normal(size=(20, 3))
    distances = np.linalg.norm(real[:, None] - real[None], axis=-1)
    radii = np.sort(distances, axis=1)[:, 5]  # the zeroth is the point itself
    reach = np.linalg.norm(real[:, None] - generated[None], axis=-1).min(1)
    coverage = Coverage(num_neighbours=5)
    assert coverage(seen(real), seen(generated)) == pytest.approx((reach <= radii).mean())
    assert coverage(seen(real), seen(real)) == 1.0


class SaysThree(nn.Module):
    """A classifier that says that all is of class 3; its features are the pixels' means."""

    head = nn.Identity()

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(torch.full((len(pixels),), 3), 10).float() + pixels.mean((1, 2, 3))[:, None]


METRICS = {
    "frechet_distance": FrechetDistance(),
    "label_consistency": LabelConsistency(),
    "coverage": Coverage(num_neighbours=5),
}


def test_baseline_values_are_of_one_half_of_the_real_images_against_the_other_or_of_held_out_images() -> None:
    real = torch.randn(401, 3, generator=torch.Generator().manual_seed(1))
    held_out = Judge(SaysThree(), 8, "squash")(digits.load(name="digits", split_seed=0).test.select(range(50)))
    among = reference(METRICS, seen(real), held_out)
    assert (among.num_half, among.num_held_out) == (200, 50)
    assert among.values["label_consistency"] == pytest.approx((held_out.labels == 3).double().mean())
    assert 0 < among.values["frechet_distance"] < 0.2  # of one distribution, not of one sample
    assert 0.8 < among.values["coverage"] <= 1
    assert reference(METRICS, seen(2 * real), held_out).values["frechet_distance"] > among.values["frechet_distance"]
    few = reference(METRICS, seen(real[:3]), None)
    assert few.as_dict() == dict.fromkeys(METRICS) | {"num_half": 1, "num_held_out": 0}


def test_a_measurer_looks_at_the_real_images_once_and_at_no_held_out_ones_where_there_are_none(monkeypatch) -> None:
    images, looked = digits.load(name="digits", split_seed=0).test.select(range(40)), []
    look = Judge.__call__
    monkeypatch.setattr(Judge, "__call__", lambda judge, images: looked.append(len(images)) or look(judge, images))
    measurer = Measurer(METRICS, Judge(SaysThree(), 8, "squash"), images)
    for part in (images.select(range(20)), images.select(range(30))):
        values = measurer(part)
        assert list(values) == list(METRICS)
        assert values["label_consistency"] == pytest.approx((part.labels == 3).mean())
    assert measurer.reference(images.select([])).values["label_consistency"] is None
    assert sorted(looked) == [20, 30, 40]


def test_only_the_metrics_that_are_named_are_built_each_once() -> None:
    config = OmegaConf.create(
        {
            "measure": {"metrics": ["coverage", "frechet_distance", "coverage"]},
            "options": {
                "metric": {name: OmegaConf.load(ROOT / f"conf/metric/{name}.yaml") for name in METRICS}
                | {"wrong": {"_target_": "collections.Counter", "name": "wrong"}}
            },
        }
    )
    metrics = load_metrics(config)
    assert list(metrics) == ["coverage", "frechet_distance"]
    assert metrics["coverage"].num_neighbours == 5
    config.measure.metrics = ["wrong"]
    with pytest.raises(UserError, match=r"^metric=wrong: collections\.Counter is no metric: "):
        load_metrics(config)
    with pytest.raises(UserError, match=r"^measure\.metrics=accuracy is not allowed: "):
        measures_of({"accuracy": METRICS["coverage"]})


def test_a_name_that_results_have_already_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch) -> None:
    config = compose("run", [f"paths.output_dir={tmp_path}"])
    monkeypatch.setattr("distdiff.study.study.load_metrics", lambda _: {"accuracy": METRICS["coverage"]})
    with pytest.raises(UserError, match=r"^measure\.metrics=accuracy is not allowed: "):
        Study(config, tmp_path)


def test_a_row_has_a_dash_where_it_has_nothing_and_a_stage_that_found_its_result_says_so(tmp_path: Path) -> None:
    found = results({"original": [0.5, 0.6], "none": [0.8, 0.8], "direct": [0.8, 0.9]})
    found.measures = measures_of(METRICS)
    found.row("none").runs[1].measures = {"coverage": 0.25, "energy_after": 1}
    titles, original, *_ = accuracy_rows(found)
    assert dict(zip(titles, original, strict=True)) == {
        "method": "original",
        "images": "10",
        "accuracy": "0.550 ± 0.071",
        "vs original": "–",
        "p": "–",
        "vs none": "–",  # which the row `none` has, with the other sign
    }
    titles, *rows = measure_rows(found)
    (none,) = [dict(zip(titles, row, strict=True)) for row in rows]  # the others have no measures
    assert {title: value for title, value in none.items() if value != "–"} == {
        "method": "none",
        "coverage ↑": "0.250",
        "energy after": "1.000",
    }
    assert {"frechet distance ↓", "label consistency ↑", "images per second ↑"} < set(none)
    found.timing = {"guide": 3.14, "train original": 0.01}
    found.found = {"train original": "the guide, trained before"}
    write_report(found, compose("run", []), None, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert '<th scope="row">guide</th><td>3.1 s</td>' in page
    assert '<th scope="row">train original</th><td>the guide, trained before</td>' in page


def test_a_grid_has_its_captions_on_it() -> None:
    sheet = Image.new("RGB", (3 * 66 - 2, 2 * 66 - 2), "red")
    names = ["cat", "a class with a very long name", "dog"]
    whole = captioned(sheet, names, ["source", "none, copy 0"])
    left, top = whole.width - sheet.width, whole.height - sheet.height
    assert whole.crop((left, top, *whole.size)).tobytes() == sheet.tobytes()
    for column in range(3):
        head = np.asarray(whole.crop((left + column * 66, 0, left + column * 66 + 62, top)).convert("L"))
        assert head.min() < 100  # there is a word
        gap = whole.crop((left + column * 66 + 62, 0, min(left + column * 66 + 66, whole.width), top))
        assert np.asarray(gap).min() == 255
    for row in range(2):
        assert np.asarray(whole.crop((0, top + row * 66, left, top + row * 66 + 64)).convert("L")).min() < 100
    other = captioned(sheet, ["dog", *names[1:]], ["source", "none, copy 0"])
    assert other.tobytes() != whole.tobytes()


def test_a_condition_measures_the_images_that_fulfil_it(small_run: list[str], tmp_path: Path, capsys) -> None:
    """Oracle: an export of the same images, measured as a whole."""
    data = ["dataset.per_class=null", "dataset.max_images=40", f"paths.output_dir={tmp_path}/outputs"]
    made = expand(compose("expand", [*small_run, *data, "guidance=none"]), tmp_path)
    condition = "copy == 1 and class_name in ['3', '4', '5']"
    part = f"{tmp_path}/part"
    copied = [f"export.source={made}", f"export.output_dir={part}", f"export.where={in_quotes(condition)}"]
    (tmp_path / "run").mkdir()
    export(compose("export", copied), tmp_path / "run")

    def measured(*keys: str) -> dict:
        measure(compose("measure", [*data, "measure.judge_steps=3", *keys]), tmp_path / "run")
        return json.loads((tmp_path / "run/results.json").read_text())

    whole, exported = measured(f"measure.expanded={made}"), measured(f"measure.expanded={part}")
    capsys.readouterr()
    filtered = measured(f"measure.expanded={made}", f"measure.where={in_quotes(condition)}")
    assert "of 80 images of" in capsys.readouterr().out
    same = ("frechet_distance", "label_consistency", "coverage")
    assert {name: filtered[name] for name in same} == pytest.approx({name: exported[name] for name in same}, rel=1e-6)
    assert filtered["frechet_distance"] != pytest.approx(whole["frechet_distance"], rel=1e-3)
    assert (whole["where"], filtered["where"]) == (None, condition)
    name = sorted((made / "3").iterdir())[0].name
    for where, words in (
        ("copy > 9", "it is true of none of the 80 images"),
        ("energy < 1", "there is no column energy"),
        (f"file_name == '3/{name}'", "it leaves one image, and a distance between distributions needs two"),
    ):
        with pytest.raises(UserError, match=r"^measure\.where=.* is not allowed: ") as caught:
            measured(f"measure.expanded={made}", f'measure.where="{where}"')
        assert words in str(caught.value)
    with pytest.raises(UserError, match=r"^measure\.where='copy < 1' is not allowed without measure\.expanded"):
        compose("measure", ["measure.where='copy < 1'"])
    with pytest.raises(UserError, match=r"^measure\.where='copy <' is not allowed: a condition on columns"):
        compose("measure", [f"measure.expanded={made}", "measure.where='copy <'"])


MEAN_LABEL = """
from distdiff.metrics.base import Metric


class MeanLabel(Metric):
    # The mean label of the generated images, times `scale`.

    higher_is_better = False

    def __init__(self, *, scale: float) -> None:
        self.scale = scale

    def __call__(self, real, generated):
        return self.scale * generated.labels.double().mean()
"""


@pytest.fixture
def with_mean_label(tmp_path: Path, monkeypatch):
    """A configuration with `mean_label`, whose class is in a module outside the package, as one more metric."""
    (tmp_path / "mean_label_metric.py").write_text(MEAN_LABEL)
    monkeypatch.syspath_prepend(tmp_path)
    option = {"_target_": "mean_label_metric.MeanLabel", "name": "mean_label", "scale": 2.0}

    def add(config: DictConfig) -> DictConfig:
        config.measure.metrics = ["coverage", "mean_label"]
        OmegaConf.update(config, "options.metric.mean_label", option, force_add=True)
        return config

    return add


def test_a_metric_of_ones_own_is_computed_and_shown_wherever_the_others_are(
    small_run: list[str], with_mean_label, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the labels that the expanded dataset notes."""
    monkeypatch.setattr("distdiff.metrics.measuring.LEAST_ACCURACY", 0.0)  # no value is marked
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    study = ["study.methods=[original,none]", "study.seeds=1", "measure.judge_steps=2", "train.steps=5"]
    config = with_mean_label(compose("run", [*small_run, *study, "dataset.per_class=1", "guidance=none"]))
    config.study.objective = "mean_label"
    returned = run(config, run_dir)
    _, row = json.loads((run_dir / "results.json").read_text())["rows"]
    directory = Path(row["expanded"][0])
    mean = 2 * np.mean(pyarrow.parquet.read_table(directory / "metadata.parquet")["label"].to_pylist())

    original, none = json.loads((run_dir / "results.json").read_text())["rows"]
    assert returned == none["mean_label"]
    measures = ["coverage", "mean_label", "energy_before", "energy_after", "images_per_second"]
    assert none["mean_label"] == pytest.approx(mean)
    assert [original[name] for name in measures] == [None] * 5
    assert "frechet_distance" not in none
    with open(run_dir / "results.csv", newline="") as file:
        lines = {line["method"]: line for line in csv.DictReader(file)}
    assert list(lines["none"]) == [*COLUMNS, *SCORES, *measures]
    assert (float(lines["none"]["mean_label"]), lines["original"]["mean_label"]) == (pytest.approx(mean), "")
    page = (run_dir / "report.html").read_text()
    assert ">mean label\N{NO-BREAK SPACE}↓</th>" in page
    assert f">{mean:.3f}</td>" in page
    printed = capsys.readouterr().out
    assert "mean label ↓" in printed
    assert f" {mean:.3f} " in printed

    measured = [f"measure.expanded={directory}", "measure.judge_steps=2", f"paths.output_dir={tmp_path}/outputs"]
    values = measure(with_mean_label(compose("measure", measured)), run_dir)
    results = json.loads((run_dir / "results.json").read_text())
    assert results["mean_label"] == values["mean_label"] == pytest.approx(mean)
    assert set(results["reference"]) == {"coverage", "mean_label", "num_half", "num_held_out"}
    printed = capsys.readouterr().out
    assert "mean label ↓" in printed
    assert f" {mean:.4f} " in printed
    assert "two halves of the real images" in printed
