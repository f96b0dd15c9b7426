"""The hierarchical bootstrap: its variance is that of closed forms, and rows share what is resampled."""

import numpy as np
import pytest

from distdiff.study.bootstrap import bootstrap_means, percentile_interval


def nested(rng: np.random.Generator, sizes: tuple[int, int, int], sigmas: tuple[float, float, float]) -> np.ndarray:
    """A nested normal model: an effect of each data seed, of each training seed in it, and of each image."""
    seeds, trainings, images = sizes
    of_seeds = rng.normal(0, sigmas[0], (seeds, 1, 1))
    return of_seeds + rng.normal(0, sigmas[1], (seeds, trainings, 1)) + rng.normal(0, sigmas[2], (1, 1, images))


def test_its_variance_is_that_of_the_resampling_in_closed_form() -> None:
    """Data seeds: variance of their means / S. Training seeds: mean variance within / (S T). Images: variance / N.

    All variances are those of the values at hand (divided by their number), from which resamples are drawn.
    """
    values = nested(np.random.default_rng(0), (5, 3, 7), (1.0, 0.7, 0.5))
    of_trainings, of_images = values.mean(2), values.mean((0, 1))
    expected = of_trainings.mean(1).var() / 5 + of_trainings.var(1).mean() / (5 * 3) + of_images.var() / 7
    found = bootstrap_means(values[None], resamples=40_000)
    assert found.mean() == pytest.approx(values.mean(), abs=4 * np.sqrt(expected / 40_000))
    assert found.var() == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize(
    ("sigmas", "name"), [((1, 0, 0), "seeds"), ((0, 1, 0), "trainings"), ((0, 0, 1), "images"), ((1, 1, 1), "all")]
)
def test_its_variance_estimates_that_of_the_mean_in_a_nested_normal_model(sigmas: tuple, name: str) -> None:
    """The mean's variance is σ_s²/S + σ_t²/(S T) + σ_i²/N.

    From S data seeds with T trainings each, a two-stage bootstrap expects of the first two terms (S − 1)/S of what the
    means of seeds show, σ_s²/S + σ_t²/(S T), and (T − 1)/T of σ_t²/(S T) from within; of images it expects (N − 1)/N.
    """
    seeds, trainings, images, repeats = 12, 3, 40, 40
    rng = np.random.default_rng(0)
    s, t, i = (sigma**2 for sigma in sigmas)
    between = (s + t / trainings) / seeds * (seeds - 1) / seeds
    expected = between + t / (seeds * trainings) * (trainings - 1) / trainings + i / images * (images - 1) / images
    found = [
        bootstrap_means(nested(rng, (seeds, trainings, images), sigmas)[None], resamples=300, seed=repeat).var()
        for repeat in range(repeats)
    ]
    assert np.mean(found) == pytest.approx(expected, rel=0.2), name
    if name != "trainings":  # which it overestimates: each data seed's mean shows them too
        assert np.mean(found) == pytest.approx(s / seeds + t / (seeds * trainings) + i / images, rel=0.3)


def test_rows_share_resampled_seeds_and_images() -> None:
    """A constant difference has no spread, however different the seeds, trainings and images are."""
    values = nested(np.random.default_rng(0), (4, 2, 9), (1.0, 1.0, 1.0))
    found = bootstrap_means(np.array([values + 0.25, values]), resamples=500)
    assert found[:, 0] - found[:, 1] == pytest.approx(0.25, abs=1e-6)
    assert found[:, 1].std() > 0.1


def test_its_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    """Sixteen data seeds, two trainings, fifty images that are labelled rightly or not; the true difference is 0.1."""
    rng, covered = np.random.default_rng(0), []
    for repeat in range(200):
        level = rng.normal(0, 0.05, (1, 16, 1, 1)) + rng.normal(0, 0.03, (2, 16, 1, 1))
        chance = np.array([0.8, 0.7]).reshape(2, 1, 1, 1) + level
        correct = rng.random((2, 16, 2, 50)) < chance
        means = bootstrap_means(correct, resamples=400, seed=repeat)
        interval = percentile_interval(means[:, 0] - means[:, 1], 0.95)
        covered.append(interval.low <= 0.1 <= interval.high)
    assert 0.91 < np.mean(covered) <= 1


def test_the_same_numbers_give_the_same_interval_whatever_fits_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    correct = np.random.default_rng(0).random((2, 3, 2, 50)) < 0.8
    first = bootstrap_means(correct, resamples=2_000)
    assert np.array_equal(first, bootstrap_means(correct, resamples=2_000))
    monkeypatch.setattr("distdiff.study.bootstrap.ROOM", 1_000)  # 20 resamples at once
    parted = bootstrap_means(correct, resamples=2_000)
    assert parted.shape == first.shape
    assert parted.mean(0) == pytest.approx(first.mean(0), abs=0.01)
    assert parted.std(0) == pytest.approx(first.std(0), rel=0.1)


def test_accuracies_whose_images_are_not_known_are_resampled_by_seed_alone() -> None:
    """A single image in place of all: the bootstrap of the means of data seeds."""
    accuracies = np.array([0.5, 0.7, 0.9]).reshape(1, 3, 1, 1)
    found = bootstrap_means(accuracies, resamples=20_000)
    assert found.var() == pytest.approx(accuracies.var() / 3, rel=0.05)
