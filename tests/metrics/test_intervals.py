"""Bootstrap intervals: what is resampled, and that known numbers are reused without changing a value."""

import math

import numpy as np
import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf

from distdiff.keys import build
from distdiff.metrics.base import Features, Metric
from distdiff.metrics.comparing import compare
from distdiff.metrics.diversity import Diversity
from distdiff.metrics.intervals import interval, interval_of_share, resamples
from distdiff.metrics.kernel_distance import KernelDistance
from distdiff.metrics.recall import Recall

NAMES = sorted(path.stem for path in (ROOT / "conf/metric").glob("*.yaml"))
METRICS: dict[str, Metric] = {name: build(OmegaConf.load(ROOT / f"conf/metric/{name}.yaml")) for name in NAMES}
# Of a resample, these leave out pairs of the same image, or keep the neighbourhoods among all images.
OTHERWISE = {"kernel_distance", "diversity", "recall"}


@pytest.fixture
def sets() -> tuple[Features, Features]:
    """40 real and 25 generated images of two classes, with 6 dimensions."""
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(40, 6)), rng.normal(size=(25, 6)) + 0.4
    return tuple(
        Features(torch.as_tensor(points), torch.arange(len(points)) % 2, torch.arange(len(points)) % 3)
        for points in (real, generated)
    )


def test_a_resample_has_as_many_images_of_each_class_drawn_with_replacement() -> None:
    labels = np.repeat([3, 0, 7], [20, 1, 9])
    counts = resamples(labels, 500)
    assert counts.shape == (500, 30)
    for label, size in ((3, 20), (0, 1), (7, 9)):
        assert (counts[:, labels == label].sum(1) == size).all()
    assert counts.mean(0) == pytest.approx(np.ones(30), abs=0.2)
    assert (counts[:, labels == 3] > 0).mean() == pytest.approx(1 - (1 - 1 / 20) ** 20, abs=0.01)
    assert (resamples(labels, 500) == counts).all()


@pytest.mark.parametrize("name", sorted(METRICS.keys() - OTHERWISE))
def test_reused_numbers_give_the_values_of_the_resampled_images(name: str, sets: tuple[Features, Features]) -> None:
    """Oracle: the metric itself, for the images as often as the resample has them."""
    real, generated = sets
    counts = resamples(generated.labels.numpy(), 4)
    anew = [
        float(METRICS[name](real, generated.select(torch.as_tensor(np.repeat(np.arange(25), row))))) for row in counts
    ]
    assert METRICS[name].resampled(real, generated, counts) == pytest.approx(anew, rel=1e-6)
    few = real.select(torch.arange(4))  # fewer real images than dimensions
    assert METRICS[name].resampled(few, generated, counts[:1]) == pytest.approx(
        [float(METRICS[name](few, generated.select(torch.as_tensor(np.repeat(np.arange(25), counts[0])))))], rel=1e-4
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_resample_that_has_each_image_once_has_the_value(name: str, sets: tuple[Features, Features]) -> None:
    once = METRICS[name].resampled(*sets, np.ones((1, 25), dtype=np.int64))
    assert once == pytest.approx([METRICS[name](*sets)], rel=1e-6)


def test_pairs_of_the_same_image_are_no_pairs(sets: tuple[Features, Features]) -> None:
    """Transcriptions over all pairs of a resample but for those of an image with itself."""
    real, generated = sets
    counts = resamples(generated.labels.numpy(), 1)
    drawn, points = np.repeat(np.arange(25), counts[0]), generated.points

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / 6 + 1) ** 3

    pairs = [(i, j) for i in drawn for j in drawn if i != j]
    within = np.mean([kernel(points[i], points[j]) for i, j in pairs])
    among = np.mean([kernel(a, b) for i, a in enumerate(real.points) for j, b in enumerate(real.points) if i != j])
    across = np.mean([kernel(a, points[j]) for a in real.points for j in drawn])
    assert KernelDistance().resampled(real, generated, counts) == pytest.approx([among + within - 2 * across])
    of_classes = [
        np.mean(
            [math.dist(points[i], points[j]) for i, j in pairs if generated.labels[i] == generated.labels[j] == label]
        )
        for label in (0, 1)
    ]
    assert Diversity().resampled(real, generated, counts) == pytest.approx([np.mean(of_classes)])


def test_recall_keeps_the_neighbourhoods_of_all_images(sets: tuple[Features, Features]) -> None:
    real, generated = sets
    counts = resamples(generated.labels.numpy(), 3)
    distances = np.array([[math.dist(a, b) for b in generated.points] for a in generated.points])
    radius = np.sort(distances, axis=1)[:, 3]
    to_real = np.array([[math.dist(a, b) for b in real.points] for a in generated.points]) <= radius[:, None]
    expected = [to_real[row > 0].any(0).mean() for row in counts]
    assert Recall(num_neighbours=3).resampled(real, generated, counts) == pytest.approx(expected)


def wilson(successes: int, number: int) -> tuple[float, float]:
    """The closed form (Wilson 1927, eq. 4 of Agresti and Coull 1998), transcribed."""
    z, share = 1.959963984540054, successes / number
    centre = share + z**2 / (2 * number)
    half = z * math.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    return tuple((centre + sign * half) / (1 + z**2 / number) for sign in (-1, 1))


# Shares of generated images that are judged one by one; recall and coverage are shares of the real images, which stay.
SHARES = ["label_consistency", "near_copies", "precision"]


@pytest.mark.parametrize(("successes", "number"), [(0, 40), (40, 40), (0, 1), (1, 1), (100, 400), (1, 7)])
def test_the_interval_of_a_share_of_images_is_wilsons(successes: int, number: int) -> None:
    found = interval_of_share(np.arange(number) < successes)
    assert found == pytest.approx(wilson(successes, number), abs=1e-12)
    assert found[0] < found[1]


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("all_are", [False, True])
def test_a_share_of_zero_or_one_has_an_interval(name: str, all_are: bool) -> None:
    real = Features(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), *[torch.zeros(50).long()] * 2)
    points = real.features[:40] if all_are else torch.full((40, 3), 99.0)
    generated = Features(points, torch.zeros(40).long(), torch.full((40,), 0 if all_are else 1))
    found = compare({name: METRICS[name]}, real, generated, class_names=("zero",), bootstrap=20)
    for part in (found, found.classes["zero"]):
        assert part.values[name] == all_are
        assert part.intervals[name] == pytest.approx(wilson(40 * all_are, 40), abs=1e-12)


@pytest.mark.parametrize("name", SHARES)
def test_the_interval_of_a_share_is_that_of_its_count(name: str, sets: tuple[Features, Features]) -> None:
    found = compare({name: METRICS[name]}, *sets, bootstrap=20)
    assert found.intervals[name] == pytest.approx(wilson(round(25 * found.values[name]), 25), abs=1e-12)


@pytest.mark.parametrize("name", sorted(METRICS.keys() - set(SHARES)))
def test_where_all_resamples_agree_there_is_no_interval(name: str, sets: tuple[Features, Features]) -> None:
    """As those of copies of one image, which say nothing of how much others would vary."""
    real, generated = sets
    copies = Features(generated.features[:1].expand(25, -1), generated.labels, generated.predicted)
    found = compare({name: METRICS[name]}, real, copies, bootstrap=20)
    assert found.values[name] is not None
    assert found.intervals == {}


def test_the_documentation_says_which_interval_each_metric_has() -> None:
    page = (ROOT / "conf/measure/README.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert {name: "Wilson" in rows[name].split("|")[-2] for name in NAMES} == {name: name in SHARES for name in NAMES}
    assert all("bootstrap" in rows[name].split("|")[-2] for name in METRICS.keys() - set(SHARES))


def test_the_interval_of_every_metric_holds_its_value_and_stays_in_its_range(sets: tuple[Features, Features]) -> None:
    """Also where resamples, with fewer different images, have lower values, as coverage has."""
    found = compare(METRICS, *sets, class_names=("zero", "one"), bootstrap=50)
    assert found.intervals.keys() == METRICS.keys()
    for part in (found, *found.classes.values()):
        for name, (low, high) in part.intervals.items():
            assert METRICS[name].limits[0] <= low <= part.values[name] <= high <= METRICS[name].limits[1], name
    counts = resamples(sets[1].labels.numpy(), 50)
    assert METRICS["coverage"].resampled(*sets, counts).max() <= found.values["coverage"] < 1
    assert found.intervals["coverage"][1] > found.values["coverage"]


def test_there_is_no_interval_of_no_value() -> None:
    assert interval(float("nan"), np.arange(5.0), (0, 1)) is None
    assert interval(0.5, np.full(5, np.nan), (0, 1)) is None
    assert interval(0.3, np.array([np.nan, 0.3, 0.1 + 0.2]), (0, 1)) is None


def test_a_class_has_the_values_of_its_images_alone_but_none_that_would_need_a_remark(
    sets: tuple[Features, Features],
) -> None:
    real, generated = sets
    found = compare(METRICS, real, generated, class_names=("zero", "one"), bootstrap=20)
    assert list(found.classes) == ["zero", "one"]
    for label, name in enumerate(found.classes):
        one, other = (each.select((each.labels == label).nonzero()[:, 0]) for each in (real, generated))
        alone = {key: metric(one, other) for key, metric in METRICS.items()}
        assert found.classes[name].values == pytest.approx(alone)
    of_six = generated.select(torch.arange(12))  # six images of each class, as many as there are dimensions
    found = compare(METRICS, real, of_six, class_names=("zero", "one"))
    assert found.classes["one"].values.keys() == METRICS.keys() - {"frechet_distance"}
    of_one = generated.select(torch.tensor([0, 1, 3]))
    assert list(compare(METRICS, real, of_one, class_names=("zero", "one")).classes) == ["one"]


def test_a_metric_of_ones_own_has_an_interval_too(sets: tuple[Features, Features]) -> None:
    class Mean(Metric):
        higher_is_better = False

        def __call__(self, real: Features, generated: Features) -> float:
            return generated.features.mean()

    real, generated = sets
    low, high = compare({"mean": Mean()}, real, generated, bootstrap=100).intervals["mean"]
    assert low < float(generated.features.mean()) < high
