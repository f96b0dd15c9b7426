"""How images are measured: where the judge runs, what is computed once, and what has to be said of a value."""

import gc
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from omegaconf import OmegaConf
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from distdiff.commands.expand import expand
from distdiff.commands.measure import measure
from distdiff.data.images import LabelledImages
from distdiff.data.sources import digits
from distdiff.errors import UserError
from distdiff.metrics.base import Features, Metric
from distdiff.metrics.coverage import Coverage
from distdiff.metrics.density import Density
from distdiff.metrics.frechet_distance import FrechetDistance
from distdiff.metrics.judge import Judge
from distdiff.metrics.label_consistency import LabelConsistency
from distdiff.metrics.measuring import Measurer
from distdiff.metrics.near_copies import NearCopies
from distdiff.metrics.precision import Precision
from distdiff.metrics.recall import Recall
from distdiff.metrics.reference import reference
from distdiff.metrics.views import BATCH


class SeesRed(nn.Module):
    """A classifier that says how red an image is; it notes where it is, and where and how many its images are."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Identity()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[str, str, int]] = []

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen.append((self.weight.device.type, pixels.device.type, len(pixels)))
        if pixels.device.type == "meta":  # a device that holds no values
            return torch.zeros(len(pixels), 10)
        levels = pixels.mean((2, 3))[:, 0]
        return torch.stack([levels ** (power + 1) for power in range(10)], 1)


def test_the_judge_and_its_batches_are_on_its_device_and_the_features_come_back() -> None:
    images = digits.load(name="digits", split_seed=0).train.select(range(BATCH + 30))
    classifier = SeesRed()
    found = Judge(classifier, 8, "squash", torch.device("meta"))(images)
    assert classifier.seen == [("meta", "meta", BATCH), ("meta", "meta", 30)]
    assert {part.device.type for part in (found.features, found.labels, found.predicted)} == {"cpu"}


METRICS = {
    "frechet_distance": FrechetDistance(),
    "label_consistency": LabelConsistency(),
    "coverage": Coverage(num_neighbours=5),
}


@pytest.fixture
def images() -> LabelledImages:
    return digits.load(name="digits", split_seed=0).train


def test_what_depends_on_the_real_images_alone_is_computed_once(
    images: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their features, the covariance of these, and the distances among them, however many sets are compared."""
    counts = {"features": 0, "covariances": 0, "neighbours": 0}
    real, held_out = images.select(range(100)), images.select(range(300, 340))
    look, update, fit = Judge.__call__, FrechetInceptionDistance.update, NearestNeighbors.fit

    def looked(judge: Judge, seen: LabelledImages) -> Features:
        counts["features"] += len(seen)
        return look(judge, seen)

    def updated(metric: FrechetInceptionDistance, features: torch.Tensor, real: bool) -> None:
        counts["covariances"] += real
        update(metric, features, real=real)

    def fitted(neighbours: NearestNeighbors, points: np.ndarray) -> NearestNeighbors:
        counts["neighbours"] += len(points) == 100
        return fit(neighbours, points)

    monkeypatch.setattr(Judge, "__call__", looked)
    monkeypatch.setattr(FrechetInceptionDistance, "update", updated)
    monkeypatch.setattr(NearestNeighbors, "fit", fitted)
    measurer = Measurer(METRICS, Judge(SeesRed(), 8, "squash"), real)
    values = [measurer(images.select(range(start, start + 60))) for start in (100, 160, 220)]
    assert counts == {"features": 100 + 3 * 60, "covariances": 1, "neighbours": 1}
    measurer.judge_accuracy(held_out)
    measurer.reference(held_out)
    assert counts["features"] == 100 + 3 * 60 + 40

    monkeypatch.undo()
    fresh = {"frechet_distance": FrechetDistance(), "coverage": Coverage(num_neighbours=5)}
    for start, found in zip((100, 160, 220), values, strict=True):
        alone = Measurer(fresh, Judge(SeesRed(), 8, "squash"), real)(images.select(range(start, start + 60)))
        assert alone == pytest.approx({name: found[name] for name in fresh}, rel=1e-9)


def test_another_set_of_real_images_is_not_taken_for_the_one_before() -> None:
    rng = np.random.default_rng(0)
    sets = [seen(rng.normal(size=(50, 3)) * scale) for scale in (1, 2, 3)]
    for metric in (FrechetDistance(), Coverage(num_neighbours=5)):
        again = [metric(real, sets[0]) for real in (sets[1], sets[2], sets[1])]
        assert again[0] == again[2] != again[1]


def test_real_images_keep_no_more_than_the_last_images_that_were_compared_with_them() -> None:
    rng = np.random.default_rng(0)
    real = seen(rng.normal(size=(50, 3)))
    metrics = [metric(num_neighbours=5) for metric in (Coverage, Density, Precision, Recall)]
    sets = [seen(rng.normal(size=(40, 3))) for _ in range(4)]
    alive = weakref.WeakSet(sets)
    for generated in sets:
        counts = np.ones((2, len(generated)), dtype=np.int64)
        for metric in (*metrics, NearCopies(quantile=0.1)):
            assert metric.resampled(real, generated, counts) == pytest.approx([metric(real, generated)] * 2)
    last = sets.pop()
    del generated, sets
    gc.collect()
    assert set(alive) == {last}


def seen(points: np.ndarray) -> Features:
    classes = torch.zeros(len(points), dtype=torch.long)
    return Features(torch.as_tensor(points), classes, classes)


@pytest.mark.parametrize(
    ("num_real", "num_generated", "said"), [(20, 20, None), (10, 20, "(10)"), (20, 9, "(9)"), (11, 11, None)]
)
def test_a_frechet_distance_from_too_few_images_is_remarked_on(
    num_real: int, num_generated: int, said: str | None
) -> None:
    rng = np.random.default_rng(0)
    remark = FrechetDistance().remark(seen(rng.normal(size=(num_real, 10))), seen(rng.normal(size=(num_generated, 10))))
    if said is None:
        assert remark is None
    else:
        assert remark.startswith(f"no more images {said} than feature dimensions (10): the covariance is singular")


def test_a_remark_is_made_exactly_where_the_covariance_is_singular() -> None:
    rng = np.random.default_rng(0)
    for count in range(8, 14):
        points = rng.normal(size=(count, 10))
        singular = np.linalg.matrix_rank(np.cov(points.T)) < 10
        assert (FrechetDistance().remark(seen(rng.normal(size=(50, 10))), seen(points)) is not None) == singular


def test_remarks_are_by_metric_of_the_baseline_values_too(images: LabelledImages) -> None:
    measurer = Measurer(METRICS, Judge(SeesRed(), 8, "squash"), images.select(range(100)))
    assert measurer.measured(images.select(range(100, 200))).remarks == {}
    few = measurer.measured(images.select(range(100, 108)))
    assert list(few.remarks) == ["frechet_distance"]
    assert few.values == measurer(images.select(range(100, 108)))
    assert "remarks" not in measurer.reference(images.select([])).as_dict()
    halves = reference(METRICS, measurer.real.select(torch.arange(12)), None)
    assert halves.as_dict()["remarks"]["frechet_distance"].startswith("no more images (6) than")
    assert Metric.remark(METRICS["coverage"], measurer.real, measurer.real) is None


def test_the_judges_accuracy_is_on_held_out_images(images: LabelledImages) -> None:
    class SaysThree(SeesRed):
        def features(self, pixels: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(torch.full((len(pixels),), 3), 10).float()

    measurer = Measurer(METRICS, Judge(SaysThree(), 8, "squash"), images.select(range(100)))
    held_out = images.select(range(200, 300))
    assert measurer.judge_accuracy(held_out) == pytest.approx((held_out.labels == 3).mean())
    assert measurer.judge_accuracy(images.select([])) is None


def test_measure_says_how_good_the_judge_is_and_marks_what_is_from_too_few_images(
    small_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distdiff.metrics.measuring.LEAST_ACCURACY", 0.0)
    data = ["dataset.per_class=null", "dataset.max_images=20", f"paths.output_dir={tmp_path}/outputs"]
    made = expand(compose("expand", [*small_run, *data, "guidance=none", "expansion.factor=1"]), tmp_path)
    capsys.readouterr()
    measure(compose("measure", [*data, "measure.judge_steps=3", f"measure.expanded={made}"]), tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["judge_accuracy"] == pytest.approx(results["reference"]["label_consistency"])
    assert results["higher_is_better"]["label_consistency"] is True
    (remark,) = results["remarks"].values()
    assert remark.startswith("no more images (20) than feature dimensions (")
    assert results["reference"]["remarks"]["frechet_distance"].startswith("no more images (10) than")

    printed = capsys.readouterr().out
    lines = printed.splitlines()
    (row,) = [line for line in lines if line.strip().startswith("frechet distance")]
    assert f"{results['frechet_distance']:.4f}*" in row
    assert f"{results['reference']['frechet_distance']:.4f}*" in row
    assert all("*" not in line for line in lines if line.strip().startswith(("coverage", "label consistency")))
    said = " ".join(printed.split())
    assert f"* frechet distance: {remark}" in said
    assert "* baseline value of frechet distance: no more images (10) than" in said
    assert f"The judge labels {results['judge_accuracy']:.1%} of" in said


def test_every_measure_of_a_judge_below_sixty_percent_is_marked(images: LabelledImages) -> None:
    held_out = images.select(range(200, 300))
    for share, doubted in ((0.59, True), (0.6, False)):
        judge = RightFor(round(share * 100))
        measurer = Measurer(METRICS, Judge(judge, 8, "squash"), images.select(range(100)), held_out)
        judge.labels = held_out.labels
        assert measurer.judge_accuracy(held_out) == pytest.approx(share)
        judge.labels = images.labels[100:130]
        remarks = measurer.measured(images.select(range(100, 130))).remarks
        assert remarks.keys() == (METRICS.keys() if doubted else set())
        if doubted:
            assert all("the judge labels only 59.0% of held-out images rightly" in words for words in remarks.values())


class RightFor(SeesRed):
    """A classifier that is right for the first `count` images of those with `labels`."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) != len(self.labels):
            return super().features(pixels)
        right = torch.arange(len(self.labels)) < self.count
        labels = torch.where(right, torch.as_tensor(self.labels), (torch.as_tensor(self.labels) + 1) % 10)
        return nn.functional.one_hot(labels, 10).float()


def test_a_metric_may_not_be_called_like_what_lies_beside_the_values(tmp_path: Path) -> None:
    config = compose("measure", ["measure.expanded=somewhere"])
    OmegaConf.update(config, "options.metric.remarks", config.options.metric["coverage"], force_add=True)
    config.measure.metrics = ["remarks"]
    with pytest.raises(UserError, match=r"^measure\.metrics=remarks is not allowed: results\.json uses this name for"):
        measure(config, tmp_path)
