"""Measures and statistics, against closed forms and scipy."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import sqrtm

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
