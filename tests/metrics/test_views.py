"""In which features images are compared, and with which real images."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from test_looks import SeesPixels

from distdiff.caching.stages import StageCache
from distdiff.commands.expand import expand
from distdiff.commands.measure import guide_of, measure
from distdiff.data.images import LabelledImages
from distdiff.data.sources import digits
from distdiff.encoders.guide import guide_in_cache
from distdiff.errors import UserError
from distdiff.metrics.base import Features
from distdiff.metrics.comparing import Compared, compare
from distdiff.metrics.coverage import Coverage
from distdiff.metrics.diversity import Diversity
from distdiff.metrics.frechet_distance import FrechetDistance
from distdiff.metrics.judge import Judge
from distdiff.metrics.label_consistency import LabelConsistency
from distdiff.metrics.measuring import Measured, Measurer, with_doubt
from distdiff.metrics.reference import Reference
from distdiff.report.table import print_measures

METRICS = {
    "coverage": Coverage(num_neighbours=5),
    "label_consistency": LabelConsistency(),
    "diversity": Diversity(),
}


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    return digits.load(name="digits", split_seed=0).train


def judge() -> Judge:
    return Judge(SeesPixels(), 8, "squash")


def brightness(images: LabelledImages) -> torch.Tensor:
    """A guide with two features."""
    pixels = images.tensors(8, "squash")
    return torch.stack([pixels.mean((1, 2, 3)), pixels[:, 0, 4].mean(1)], 1)


def test_each_view_has_its_features_and_both_sets_of_real_images(images: LabelledImages) -> None:
    """Oracle: the metrics themselves, for features that are computed here."""
    real, held_out, generated = (images.select(range(*ends)) for ends in ((0, 80), (80, 130), (130, 170)))
    measurer = Measurer(METRICS, judge(), real, held_out, ["judge", "guide", "pixels"])
    measurer.guided_by(brightness)
    found = measurer.measured(generated)
    assert list(found.views) == ["judge", "guide", "pixels"]
    assert found.values == found.views["judge"]["training"].values == measurer(generated)
    of_views = {"judge": lambda part: part.tensors(8, "squash").flatten(1), "guide": brightness}
    of_views["pixels"] = lambda part: part.tensors(16, "squash").flatten(1)
    for view, features in of_views.items():
        assert list(found.views[view]) == ["training", "held_out"]
        for name, others in (("training", real), ("held_out", held_out)):
            one, other = (
                Features(features(part), torch.tensor(part.labels), judge()(part).predicted)
                for part in (others, generated)
            )
            expected = compare(METRICS, one, other, generated.class_names)
            assert found.views[view][name].values == pytest.approx(expected.values)
            assert found.views[view][name].classes.keys() == expected.classes.keys() == set("0123456789")
            assert found.views[view][name].classes["7"].values == pytest.approx(expected.classes["7"].values)


def test_the_first_of_the_features_gives_the_values_by_plain_name(images: LabelledImages) -> None:
    real, generated = images.select(range(60)), images.select(range(60, 100))
    measurer = Measurer(METRICS, judge(), real, None, ["pixels", "judge", "pixels"])
    found = measurer.measured(generated)
    assert list(found.views) == ["pixels", "judge"]
    assert found.values == found.views["pixels"]["training"].values == measurer(generated)
    assert found.values["diversity"] != found.views["judge"]["training"].values["diversity"]
    assert list(found.views["judge"]) == ["training"]  # there are no held-out images


def test_the_doubt_about_a_judge_is_no_doubt_about_pixels(images: LabelledImages) -> None:
    measurer = Measurer(METRICS, judge(), images.select(range(60)), images.select(range(60, 99)), ["pixels"])
    assert measurer.measured(images.select(range(99, 130))).remarks.keys() == {"label_consistency"}


def test_each_value_from_too_few_images_is_remarked_on_in_its_own_view(images: LabelledImages) -> None:
    """The judge's view has 192 dimensions, the pixels 768 and the guide's 2, and of held-out images there are three."""
    metrics = METRICS | {"frechet_distance": FrechetDistance()}
    measurer = Measurer(
        metrics, judge(), images.select(range(200)), images.select(range(200, 203)), ["guide", "judge", "pixels"]
    )
    measurer.guided_by(brightness)
    generated = images.select(range(203, 233))
    found = measurer.measured(generated)
    few, held_out = "no more images (30) than feature dimensions", "no more images (3) than feature dimensions"
    assert found.remarks.keys() == {"label_consistency"}  # the plain values are the guide's, and the judge is poor
    expected = {
        ("judge", "training"): f"{few} (192)",
        ("judge", "held_out"): f"{held_out} (192)",
        ("pixels", "training"): f"{few} (768)",
        ("pixels", "held_out"): f"{held_out} (768)",
        ("guide", "training"): None,
        ("guide", "held_out"): None,
    }
    for (view, name), words in expected.items():
        remarks = found.views[view][name].remarks
        assert ("frechet_distance" in remarks) == (words is not None)
        assert words is None or remarks["frechet_distance"].startswith(words), (view, name)
        assert ("coverage" in remarks) == (view == "judge" or name == "held_out")  # doubt, or few neighbours
        assert "the judge labels only" in remarks["label_consistency"]
        assert ("the judge labels only" in remarks["diversity"]) if view == "judge" else "diversity" not in remarks
        assert found.as_dict()[view][name]["remarks"] == remarks
        for of_class in found.views[view][name].classes.values():
            assert of_class.remarks == {}
            assert "frechet_distance" not in of_class.values or view == "guide"


def test_the_table_marks_each_value_that_has_a_remark_and_names_its_column(capsys) -> None:
    metrics = {"frechet_distance": FrechetDistance(), "coverage": METRICS["coverage"]}
    values = {"frechet_distance": 1.5, "coverage": 0.25}
    of_few, none = {"frechet_distance": "few"}, dict.fromkeys(metrics)
    views = {
        "judge": {"training": Compared(values), "held_out": Compared(values, remarks=of_few | {"coverage": "far"})},
        "guide": {"training": Compared(values, remarks={"coverage": "far"})},
        "pixels": {"training": Compared(values | none, remarks=of_few | {"coverage": "no value, since"})},
    }
    print_measures(Measured(values, {}, views), metrics, Reference(none, 2, 0), None)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    (frechet,) = (line.split() for line in lines if "frechet distance ↓" in line)
    (coverage,) = (line.split() for line in lines if "coverage ↑" in line)
    assert frechet[-5:] == ["1.5000", "1.5000*", "1.5000", "–*", "–"]
    assert coverage[-5:] == ["0.2500", "0.2500*", "0.2500*", "–*", "–"]
    assert [line for line in lines if line.startswith("*")] == [
        "* frechet distance (held-out, pixels): few",
        "* coverage (held-out, guide): far",
        "* coverage (pixels): no value, since",
    ]


def test_a_remark_that_is_not_about_the_judge_stays_where_the_judge_is_doubted() -> None:
    doubted = with_doubt({"frechet_distance": "few"}, ["label_consistency"], 0.3)
    assert doubted["frechet_distance"] == "few"
    assert doubted.keys() == {"frechet_distance", "label_consistency"}


def test_another_guide_is_not_taken_for_the_one_before(images: LabelledImages) -> None:
    """Each seed of a study has its own; real images are looked at once by each."""
    looked = []

    def other(part: LabelledImages) -> torch.Tensor:
        looked.append(len(part))
        return part.tensors(8, "squash").flatten(1)[:, :20]

    measurer = Measurer(METRICS, judge(), images.select(range(60)), None, ["guide"])
    measurer.guided_by(brightness)
    first = measurer.measured(images.select(range(60, 90))).values
    measurer.guided_by(other)
    second = measurer.measured(images.select(range(60, 90))).values
    assert first["diversity"] != second["diversity"]
    assert measurer.measured(images.select(range(60, 90))).values == second
    assert sorted(looked) == [30, 30, 60]


def test_a_remark_on_the_frechet_distance_names_the_metric_that_leads() -> None:
    labels = torch.zeros(4, dtype=torch.long)
    few = Features(torch.randn(4, 9), labels, labels)
    assert "kernel_distance is not" in FrechetDistance().remark(few, few)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pipeline_folder: Path) -> tuple[Path, list[str]]:
    """A small expansion whose guide was trained, and the keys of data and folders."""
    from conftest import small_overrides

    place = tmp_path_factory.mktemp("views")
    data = ["dataset.per_class=null", "dataset.max_images=40", f"paths.output_dir={place}/outputs"]
    keys = [*small_overrides(pipeline_folder, place), *data, "guidance=none", "expansion.factor=2"]
    return expand(compose("expand", keys), place), data


def measured(made: Path, data: list[str], place: Path, *keys: str) -> dict:
    measure(compose("measure", [*data, f"measure.expanded={made}", "measure.judge_steps=2", *keys]), place)
    return json.loads((place / "results.json").read_text())


def test_measure_finds_the_guide_and_writes_all_values(made: tuple[Path, list[str]], tmp_path: Path, capsys) -> None:
    path, data = made
    keys = ["measure.features=[judge,guide,pixels]", "measure.bootstrap=20"]
    found = measured(path, data, tmp_path, *keys)
    config = compose("measure", [*data, f"measure.expanded={path}", *keys])
    identity = json.loads((path / "manifest.json").read_text())["ingredients"]["encoder"]
    guide = guide_of(config, StageCache(config.paths.cache_dir))
    weights = guide_in_cache(identity, StageCache(config.paths.cache_dir)).state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in guide.state_dict().items())

    measures = found["measures"]
    assert {view: list(sets) for view, sets in measures.items()} == {
        view: ["training", "held_out"] for view in ("judge", "guide", "pixels")
    }
    names = ["frechet_distance", "kernel_distance", "label_consistency", "coverage", "diversity", "near_copies"]
    own = measures["judge"]["training"]
    assert {name: found[name] for name in names} == own["values"]
    for name, (low, high) in own["intervals"].items():
        assert low <= own["values"][name] <= high
    assert own["intervals"].keys() >= set(names) - {"coverage"}  # which is 0 in all resamples
    assert set(own["classes"]["3"]) == {"values", "intervals"}
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.strip().startswith("diversity"))
    for view in ("judge", "guide", "pixels"):
        assert f" {measures[view]['training']['values']['diversity']:.4f}" in line
    (low, high), span = own["intervals"]["diversity"], [each["values"]["diversity"] for each in own["classes"].values()]
    assert f"{low:.4f} to {high:.4f}" in line
    assert f"{min(span):.3f} to {max(span):.3f}" in line
    head = next(place for place, line in enumerate(lines) if "95%" in line)
    table = lines[head : next(place for place, line in enumerate(lines) if line.startswith("Baseline values"))]
    assert max(len(line.rstrip()) for line in table) <= 110
    few = [line.split()[0] for line in lines if re.match(r" *(kernel|frechet) distance ", line)]
    assert few == ["kernel", "frechet"]  # there are fewer images than dimensions


def test_without_resamples_there_are_no_intervals(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, data = made
    found = measured(path, data, tmp_path, "measure.bootstrap=0", "measure.metrics=[diversity]")
    own = found["measures"]["judge"]["training"]
    assert list(own) == ["values", "remarks", "classes"]  # a remark on the judge, which is poor
    assert list(own["values"]) == ["diversity"]


def test_a_guide_that_is_not_there_is_one_line(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, data = made
    copy = shutil.copytree(path, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    for encoder, said in (
        ("0123456789abcdef", "is not in paths.cache_dir="),
        ("../classifiers", "is not in paths.cache_dir="),
        (None, "no encoder guided the images of"),
    ):
        manifest["ingredients"]["encoder"] = encoder
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UserError, match=r"^measure\.features=\['guide'\] is not allowed: ") as caught:
            measured(copy, data, tmp_path, "measure.features=[guide]")
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ("[]", "measure.features=[] is not allowed: one or more of judge, guide, pixels"),
        ("[clip]", "one of judge, guide, pixels"),
    ],
)
def test_features_that_are_not_known_are_one_line(features: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("run", [f"measure.features={features}"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_guides_features_have_unit_length(made: tuple[Path, list[str]], images: LabelledImages) -> None:
    from distdiff.metrics.views import GuideView

    path, data = made
    config = compose("measure", [*data, f"measure.expanded={path}"])
    guide = guide_of(config, StageCache(config.paths.cache_dir))
    found = GuideView(guide, "squash")(images.select(range(5)))
    assert found.norm(dim=1).numpy() == pytest.approx(np.ones(5), abs=1e-5)
    with torch.no_grad():
        expected = guide(images.select(range(5)).tensors(guide.input_size, "squash"))
    assert torch.allclose(found, expected, atol=1e-6)
