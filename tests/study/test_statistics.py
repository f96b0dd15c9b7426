"""Intervals and p-values: those of scipy, those of their definitions, and true as often as they say."""

import numpy as np
import pytest
from scipy import stats

from distdiff.study.runs import MethodResult, RunResult
from distdiff.study.statistics import holm, mean_interval, paired_difference, simultaneous

DRAWS = 2_000  # repetitions of a simulated study


def test_the_paired_interval_and_its_p_value_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for count in (2, 3, 10):
        values, baseline = rng.normal(0.8, 0.1, count), rng.normal(0.7, 0.1, count)
        for confidence in (0.95, simultaneous(7)):
            ours, theirs = paired_difference(values, baseline, confidence), stats.ttest_rel(values, baseline)
            bounds = theirs.confidence_interval(confidence)
            assert (ours.low, ours.high) == pytest.approx((bounds.low, bounds.high))
            assert ours.p_value == pytest.approx(theirs.pvalue)
        low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
        assert (mean_interval(values).low, mean_interval(values).high) == pytest.approx((low, high))


def test_a_single_seed_and_equal_differences_have_no_division_by_zero() -> None:
    single = paired_difference([0.9], [0.8])
    assert (single.interval, single.p_value, single.settled) == (None, None, False)
    assert not single.lacks_spread
    but_for_rounding = ([0.9, 0.8, 0.7], [0.8, 0.7, 0.6])
    for first, second in (([0.5, 0.5], [0.5, 0.5]), ([0.75, 1.0], [0.5, 0.75]), but_for_rounding):
        same = paired_difference(first, second)
        assert same.mean == pytest.approx(first[0] - second[0])
        assert (same.interval, same.p_value, same.settled, same.lacks_spread) == (None, None, False, True)
    assert (mean_interval([0.5, 0.5]).low, mean_interval([0.5, 0.5]).high) == (0.5, 0.5)
    assert mean_interval([0.9]) is None


def test_holm_is_the_calculation_by_hand() -> None:
    """0.005 · 4, then max(0.02, 0.01 · 3), then 0.03 · 2, then max(0.06, 0.04 · 1); none is above 1."""
    assert holm([0.03, 0.005, 0.04, 0.01]) == pytest.approx([0.06, 0.02, 0.06, 0.03])
    assert holm([0.7, 0.6]) == [1, 1]
    assert holm([]) == []
    assert holm([0.04]) == [0.04]


def test_holm_rejects_what_its_step_down_definition_rejects() -> None:
    """From the smallest p-value on, reject while p is at most α / (number of hypotheses that are left)."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        p_values = rng.beta(0.3, 3, rng.integers(1, 9))
        rejected, left = set(), len(p_values)
        for index in np.argsort(p_values, kind="stable"):
            if p_values[index] > 0.05 / left:
                break
            rejected.add(index)
            left -= 1
        assert {index for index, p in enumerate(holm(list(p_values))) if p <= 0.05} == rejected


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Paired draws of five seeds with a common part, which pairing removes; the true difference is 0.02."""
    rng = np.random.default_rng(0)
    common = rng.normal(0.8, 0.2, (DRAWS, 5))
    values, baseline = common + rng.normal(0.02, 0.03, (DRAWS, 5)), common + rng.normal(0, 0.03, (DRAWS, 5))
    found = [paired_difference(*pair).interval for pair in zip(values, baseline, strict=True)]
    covered = np.mean([each.low <= 0.02 <= each.high for each in found])
    assert 0.935 < covered < 0.965
    assert np.mean([each.high - each.low for each in found]) < 0.15  # unpaired, it would be about 0.5


def test_simultaneous_intervals_hold_together_and_single_ones_do_not() -> None:
    """Seven rows against one baseline, four seeds, no difference at all."""
    rng = np.random.default_rng(1)

    def all_hold(confidence: float) -> float:
        hold = []
        for _ in range(DRAWS // 3):
            baseline, rows = rng.normal(size=4), rng.normal(size=(7, 4))
            found = [paired_difference(row, baseline, confidence) for row in rows]
            hold.append(all(each.low <= 0 <= each.high for each in found))
        return float(np.mean(hold))

    assert 0.94 < all_hold(simultaneous(7)) <= 1
    assert all_hold(0.95) < 0.88


def test_the_mean_over_seeds_has_only_intervals_that_every_seed_with_the_value_has() -> None:
    def measured(value: float | None, interval: list[float] | None, remark: str) -> RunResult:
        found = {"values": {"coverage": value}, "remarks": {"coverage": remark}}
        found |= {"intervals": {"coverage": interval}} if interval else {}
        views = {"judge": {"training": found | {"classes": {"intervals": found}}}}  # a class may have any name
        return RunResult(len(remark), 0.5, 10, views=views)

    whole = MethodResult("none", [measured(0.5, [0.4, 0.6], "a"), measured(0.7, [0.6, 0.8], "bc")])
    of_all = whole.views["judge"]["training"]
    for part in (of_all, of_all["classes"]["intervals"]):
        assert part["values"]["coverage"] == pytest.approx(0.6)
        assert part["intervals"]["coverage"] == pytest.approx([0.5, 0.7])
        assert part["remarks"] == {"coverage": "bc"}
    partial = MethodResult("none", [measured(0.5, [0.4, 0.6], "a"), measured(1.0, None, "bc")])
    of_all = partial.views["judge"]["training"]
    for part in (of_all, of_all["classes"]["intervals"]):
        assert part["values"]["coverage"] == pytest.approx(0.75)
        assert "intervals" not in part
    without = MethodResult("none", [measured(0.5, [0.4, 0.6], "a"), measured(None, None, "bc")])
    assert without.views["judge"]["training"]["intervals"] == {"coverage": [0.4, 0.6]}
