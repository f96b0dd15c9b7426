"""Measures and statistics, against closed forms and scipy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from PIL import Image
from scipy import stats
from scipy.linalg import sqrtm
from torch import nn

from distdiff.commands.expand import expand
from distdiff.commands.export import export
from distdiff.commands.measure import measure_expanded
from distdiff.data.sources import digits
from distdiff.errors import UserError
from distdiff.metrics.fidelity import coverage, frechet_distance
from distdiff.metrics.reference import reference
from distdiff.pictures import captioned
from distdiff.report.html import write_report
from distdiff.report.table import cells
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


def test_the_reference_is_one_half_of_the_real_images_against_the_other() -> None:
    class Judge(nn.Module):
        """Says that all is of class 3."""

        head = nn.Identity()

        def features(self, pixels: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(torch.full((len(pixels),), 3), 10).float()

    real, held_out = (
        torch.randn(401, 3, generator=torch.Generator().manual_seed(1)),
        digits.load(name="digits", split_seed=0).test.select(range(50)),
    )
    among = reference(real, held_out, Judge(), 8, "squash", 5)
    assert (among.num_half, among.num_held_out) == (200, 50)
    assert among.label_consistency == pytest.approx((held_out.labels == 3).mean())
    assert 0 < among.frechet_distance < 0.2  # of one distribution, not of one sample
    assert 0.8 < among.coverage <= 1
    assert reference(2 * real, held_out, Judge(), 8, "squash", 5).frechet_distance > among.frechet_distance
    few = reference(real[:3], held_out.select([]), Judge(), 8, "squash", 5)
    assert (few.frechet_distance, few.label_consistency, few.coverage) == (None, None, None)


def test_a_row_has_a_dash_where_it_has_nothing_and_a_stage_that_found_its_result_says_so(tmp_path: Path) -> None:
    found = results([0.5, 0.6], [0.8, 0.8], [0.8, 0.9])
    original = cells(found, found.row("original"))
    assert original[3] == "–"
    assert original[4] == "-0.250 ± 0.635"
    assert original[5:] == ["–"] * 5
    found.timing = {"guide": 3.14, "train original": 0.01}
    found.found = {"train original": "the guide, trained before"}
    Image.new("RGB", (8, 8)).save(tmp_path / "samples.png")
    write_report(found, compose("run", []), tmp_path / "samples.png", ["source"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<td>guide</td><td>3.1 s</td>" in page
    assert "<td>train original</td><td>the guide, trained before</td>" in page


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
