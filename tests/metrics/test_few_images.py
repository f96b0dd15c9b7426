"""Every metric of conf/metric for few, equal, missing and broken images: a value, or none and a line that says why."""

import json
import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from test_intervals import METRICS, NAMES
from test_looks import SeesPixels

from distdiff.data.sources import digits
from distdiff.metrics.base import Features
from distdiff.metrics.comparing import compare
from distdiff.metrics.judge import Judge
from distdiff.metrics.measuring import Measurer
from distdiff.metrics.reference import reference
from distdiff.report.table import print_measures

# The metrics that have no value for so few images, and the beginning of the line that says so.
NEEDS_TWO_REAL = {
    "coverage",
    "density",
    "precision",
    "near_copies",
    "nearest_real",
    "frechet_distance",
    "kernel_distance",
}
NEEDS_TWO_NEW = {"recall", "frechet_distance", "kernel_distance"}
WITHOUT_REAL = {"diversity", "vendi_score", "label_consistency"}


def images(count: int, classes: int = 2, equal: bool = False, seed: int = 0) -> Features:
    points = np.random.default_rng([seed, count]).normal(size=(count, 4))
    labels = torch.arange(count) % classes
    return Features(torch.as_tensor(points[:1].repeat(count, 0) if equal else points), labels, labels)


def broken(of: Features) -> Features:
    """The same images, where a network has failed for one."""
    return Features(torch.cat([of.features[1:], torch.full((1, 4), math.nan)]), of.labels, of.predicted)


def other_class(of: Features) -> Features:
    return Features(of.features, of.labels + 1, of.predicted)


def nothing() -> Features:
    """What a judge gives for no images: no number of features is known."""
    return Features(torch.empty(0, 0), torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long))


# The sets, and the metrics that have no value for them.
CASES: dict[str, tuple[Features, Features, set[str]]] = {
    "one real image": (images(1), images(20), NEEDS_TWO_REAL | {"covariance_distance"}),
    "two real images of two classes": (images(2), images(20), {"covariance_distance"}),
    "fewer real images than neighbours": (images(4), images(20), set()),
    "one new image": (images(20), images(1), NEEDS_TWO_NEW | {"covariance_distance", "diversity"}),
    "two new images of two classes": (images(20), images(2), {"covariance_distance", "diversity"}),
    "fewer new images than neighbours": (images(20), images(3), set()),
    "one of each": (images(1), images(1), NEEDS_TWO_REAL | NEEDS_TWO_NEW | {"covariance_distance", "diversity"}),
    "equal real images": (images(20, equal=True), images(20), {"covariance_distance", "nearest_real"}),
    "equal new images": (images(20), images(20, equal=True), set()),
    "all equal": (images(20, equal=True), images(20, equal=True), {"covariance_distance", "nearest_real"}),
    "one class": (images(20, classes=1), images(15, classes=1), set()),
    "an image for each class": (images(20, classes=20), images(15, classes=15), {"covariance_distance", "diversity"}),
    "a class without real images": (images(20, classes=1), images(15), set()),
    "a class without new images": (images(20), images(15, classes=1), set()),
    "no class in common": (
        images(20, classes=1),
        other_class(images(15, classes=1)),
        {"covariance_distance", "energy"},
    ),
    "no new images": (images(20), images(0), set(NAMES)),
    "no new images and no features": (images(20), nothing(), set(NAMES)),
    "no real images": (images(0), images(20), set(NAMES) - WITHOUT_REAL),
    "no real images and no features": (nothing(), images(20), set(NAMES) - WITHOUT_REAL),
    "a broken new image": (images(20), broken(images(15)), set(NAMES)),
    "a broken real image": (broken(images(20)), images(15), set(NAMES) - WITHOUT_REAL),
}


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """Neither of divisions by zero nor of means of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_there_is_a_value_or_a_line_that_says_why_there_is_none(name: str, case: str) -> None:
    real, generated, without = CASES[case]
    metric = METRICS[name]
    class_names = [str(label) for label in range(20)]
    found = compare({name: metric}, real, generated, class_names, bootstrap=20)
    value, direct = found.values[name], metric(real, generated)
    if name in without:
        assert value is None
        assert math.isnan(direct)
        remark = found.remarks[name]
        assert remark.startswith("no value, since ")
        assert "\n" not in remark
        assert found.intervals == {}
    else:
        assert value == direct
        assert metric.limits[0] <= value <= metric.limits[1] + 1e-9
        assert not found.remarks.get(name, "").startswith("no value")
    for part in (found, *found.classes.values()):
        assert all(value is None or math.isfinite(value) for value in part.values.values())
        assert all(low < high for low, high in part.intervals.values())
        json.dumps(part.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("case", "name", "words"),
    [
        ("one real image", "density", "no value, since it needs 2 real images or more, and there is 1"),
        ("one new image", "recall", "no value, since it needs 2 new images or more, and there is 1"),
        ("no new images", "coverage", "no value, since it needs 1 new image or more, and there is none"),
        ("a broken new image", "energy", "no value, since 1 new image has features that are no finite numbers"),
        ("an image for each class", "diversity", "no value, since no class has two new images"),
    ],
)
def test_the_line_names_what_is_missing(case: str, name: str, words: str) -> None:
    real, generated, _ = CASES[case]
    assert compare({name: METRICS[name]}, real, generated).remarks == {name: words}


@pytest.mark.parametrize("name", ["precision", "density", "coverage", "recall"])
def test_neighbourhoods_of_fewer_neighbours_than_asked_for_are_remarked_on(name: str) -> None:
    """The value is that with all the neighbours that there are."""
    metric = METRICS[name]
    asked, kind = metric.num_neighbours, "new" if name == "recall" else "real"
    for count in (asked, asked + 1):
        real, generated = (images(20), images(count)) if kind == "new" else (images(count), images(20))
        found = compare({name: metric}, real, generated)
        fewer = type(metric)(num_neighbours=count - 1)
        assert found.values[name] == fewer(real, generated)
        words = (
            f"neighbourhoods of {count - 1} instead of {asked} neighbours, all that there are of {count} {kind} images, "
            "so they are large"
        )
        assert found.remarks == ({name: words} if count == asked else {})


def test_the_baseline_value_says_why_it_is_none() -> None:
    found = reference(
        {"recall": METRICS["recall"], "nearest_real": METRICS["nearest_real"]}, images(8, equal=True), None
    )
    assert found.values["nearest_real"] is None
    assert found.remarks["nearest_real"].startswith("no value, since most real images have a copy")
    assert found.values["recall"] is not None


def test_one_real_and_one_new_image_are_measured_and_printed_with_a_line_for_each_missing_value(capsys) -> None:
    digit = digits.load(name="digits", split_seed=0).train
    measurer = Measurer(
        METRICS, Judge(SeesPixels(), 8, "squash"), digit.select([0]), None, ["judge", "pixels"], bootstrap=20
    )
    found = measurer.measured(digit.select([1]))
    assert {name for name, value in found.values.items() if value is not None} == set(NAMES) - {
        *CASES["one of each"][2],
        *({"energy"} if digit.labels[0] != digit.labels[1] else set()),
    }
    json.dumps(found.as_dict(), allow_nan=False)
    print_measures(found, METRICS, measurer.reference(digit.select([])), None)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    (density,) = (line.split() for line in lines if line.strip().startswith("density ↑"))
    assert "–*" in density
    assert "* density: no value, since it needs 2 real images or more, and there is 1" in lines
    assert "nan" not in " ".join(lines)
