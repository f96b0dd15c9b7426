"""Measures and statistics, against closed forms and scipy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from scipy import stats
from scipy.linalg import sqrtm

from distdiff.errors import UserError
from distdiff.expansion.command import expand
from distdiff.export.command import export
from distdiff.metrics.command import measure_expanded
from distdiff.metrics.fidelity import coverage, frechet_distance
from distdiff.study.results import MethodResult, SeedResult, StudyResults
from distdiff.study.statistics import paired_difference


def test_frechet_distance_is_its_closed_form() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 5))
    generated = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + 1
    means = ((real.mean(0) - generated.mean(0)) ** 2).sum()
    first, second = np.cov(real.T), np.cov(generated.T)
    expected = means + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(torch.from_numpy(real), torch.from_numpy(generated)) == pytest.approx(expected, rel=1e-6)


def test_coverage_is_the_fraction_of_real_points_reached() -> None:
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(50, 3)), rng.normal(size=(20, 3))
    distances = np.linalg.norm(real[:, None] - real[None], axis=-1)
    radii = np.sort(distances, axis=1)[:, 5]  # the zeroth is the point itself
    reach = np.linalg.norm(real[:, None] - generated[None], axis=-1).min(1)
    assert coverage(real, generated, 5) == pytest.approx((reach <= radii).mean())
    assert coverage(real, real, 5) == 1.0


def test_the_interval_is_scipys_paired_t_interval() -> None:
    first, second = [0.9, 0.85, 0.88, 0.91], [0.87, 0.86, 0.84, 0.88]
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    ours = paired_difference(first, second)
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high))
    assert not ours.settled


def test_a_single_seed_has_no_interval() -> None:
    assert paired_difference([0.9], [0.8]).low is None


def results(original: list[float], none: list[float], direct: list[float]) -> StudyResults:
    rows = [
        MethodResult(method, [SeedResult(seed, accuracy, 10) for seed, accuracy in enumerate(values)])
        for method, values in (("original", original), ("none", none), ("direct", direct))
    ]
    return StudyResults("digits", "test", "direct", rows, {})


def test_the_headline_says_when_guidance_did_not_measurably_help() -> None:
    lines = results([0.5, 0.5, 0.5], [0.8, 0.81, 0.79], [0.8, 0.79, 0.82]).headline()
    assert lines[0].startswith("Expansion with 'direct' helped:")
    assert lines[1].startswith("Guidance 'direct' did not measurably help here:")


def test_the_headline_says_when_guidance_hurt() -> None:
    assert "hurt" in results([0.5, 0.5, 0.5], [0.8, 0.81, 0.79], [0.7, 0.705, 0.69]).headline()[1]


def test_a_condition_measures_the_images_that_fulfil_it(small_run: list[str], tmp_path: Path, capsys) -> None:
    """Oracle: an export of the same images, measured as a whole."""
    data = ["dataset.per_class=null", "dataset.max_images=40", f"paths.output_dir={tmp_path}/outputs"]
    made = expand(compose("expand", [*small_run, *data, "guidance=none"]), tmp_path)
    condition = "copy == 1 and class_name in ['3', '4', '5']"
    part = f"{tmp_path}/part"
    copied = [f"export.source={made}", f"export.output_dir={part}", f"export.where={condition}"]
    (tmp_path / "run").mkdir()
    export(compose("export", copied), tmp_path / "run")

    def measured(*keys: str) -> dict:
        measure_expanded(compose("measure", [*data, "measure.judge_steps=3", *keys]), tmp_path / "run")
        return json.loads((tmp_path / "run/results.json").read_text())

    whole, exported = measured(f"measure.expanded={made}"), measured(f"measure.expanded={part}")
    capsys.readouterr()
    filtered = measured(f"measure.expanded={made}", f"measure.where={condition}")
    assert "of 80 images of" in capsys.readouterr().out
    same = ("frechet_distance", "label_consistency", "coverage")
    assert {name: filtered[name] for name in same} == pytest.approx({name: exported[name] for name in same}, rel=1e-6)
    assert filtered["frechet_distance"] != pytest.approx(whole["frechet_distance"], rel=1e-3)
    assert (whole["where"], filtered["where"]) == (None, condition)
    name = sorted((made / "3").iterdir())[0].name
    for where, words in (
        ("copy > 9", "it is true of none of the 80 images"),
        ("energy < 1", "there is no column energy"),
        (f"file_name == '3/{name}'", "it leaves one image, and a distance of distributions takes two"),
    ):
        with pytest.raises(UserError, match=r"^measure\.where=.* is not allowed: ") as caught:
            measured(f"measure.expanded={made}", f'measure.where="{where}"')
        assert words in str(caught.value)
    with pytest.raises(UserError, match=r"^measure\.where='copy < 1' is not allowed without measure\.expanded"):
        compose("measure", ["measure.where=copy < 1"])
    with pytest.raises(UserError, match=r"^measure\.where='copy <' is not allowed: a condition on columns"):
        compose("measure", [f"measure.expanded={made}", "measure.where=copy <"])
