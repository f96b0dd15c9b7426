"""Successive halving, and the rule by which one of the candidates that are left is chosen."""

import math

import pytest
from scipy import stats

from distdiff.tuning.choosing import as_record, choose, num_evaluations

ROUNDS = [[(repeat, fold) for fold in range(2)] for repeat in range(3)]
LEVELS = {"none a": 0.5, "none b": 0.6, "x": 0.55, "y": 0.7, "z": 0.1}
UNGUIDED = ["none a", "none b"]


def test_each_round_leaves_the_best_and_the_best_unguided_candidate() -> None:
    seen = []

    def accuracy(name: str, unit: tuple[int, int]) -> float:
        seen.append((name, unit))
        return LEVELS[name] + 0.01 * unit[1]

    choice = choose(list(LEVELS), UNGUIDED, ROUNDS, 0.4, accuracy)
    assert [sorted({name for name, unit in seen if unit[0] == repeat}) for repeat in range(3)] == [
        sorted(LEVELS),
        ["none b", "y"],  # two of five go on, and the best unguided one is among them
        ["none b", "y"],
    ]
    assert len(seen) == len(set(seen)) == num_evaluations(len(LEVELS), [2, 2, 2], 0.4)
    assert (choice.chosen, choice.unguided, choice.best_other) == ("y", "none b", "y")
    assert choice.difference == pytest.approx(0.1)
    worse = {"none": 0.1, "x": 0.5, "y": 0.6, "z": 0.7}
    kept = choose(list(worse), ["none"], ROUNDS, 0.5, lambda name, unit: worse[name])
    # The second round has the best unguided one beside the two that are left, and the last round it and the best of these.
    assert [len(kept.accuracies[name]) for name in worse] == [6, 2, 4, 6]


def test_the_last_round_alone_gives_the_difference_and_decides_nothing_before() -> None:
    """In the first two rounds x seems far better than none; in the last it is not."""

    def accuracy(name: str, unit: tuple[int, int]) -> float:
        return 0.5 + (0.3 if name == "x" and unit[0] < 2 else 0.0) + (0.01 if name == "y" else 0.0)

    choice = choose(["none", "x", "y"], ["none"], ROUNDS, 1.0, accuracy)
    assert (choice.chosen, choice.best_other, choice.difference, choice.is_optimistic) == ("none", "x", 0.0, False)
    assert choose(["none", "x", "y"], ["none"], ROUNDS[:1], 1.0, accuracy).is_optimistic


@pytest.mark.parametrize(
    "gains", [(0.1, 0.1, -0.05, 0.1), (0.1, -0.1, 0.12, -0.1), (0, 0, 0, 0), (-0.1, -0.2, -0.1, 0.1)]
)
def test_another_candidate_is_chosen_only_if_it_is_better_by_more_than_the_standard_error(gains: tuple) -> None:
    order = [(1, fold) for fold in range(4)]
    units = [[(0, 0), (0, 1)], order]
    values = {"x": {unit: 0.5 + gain for unit, gain in zip(order, gains, strict=True)}, "none": {}}
    choice = choose(["none", "x"], ["none"], units, 1.0, lambda name, unit: values[name].get(unit, 0.5))
    assert choice.error == pytest.approx(stats.sem(gains))
    assert choice.difference == pytest.approx(sum(gains) / 4)
    assert choice.chosen == ("x" if sum(gains) / 4 > max(stats.sem(gains), 1e-9) else "none")


def test_a_single_unit_decides_nothing_and_unguided_candidates_alone_have_no_comparison() -> None:
    single = choose(["none", "x"], ["none"], [[(0, 0)]], 0.5, lambda name, unit: float(name == "x"))
    assert (single.chosen, single.error) == ("none", math.inf)
    assert as_record(single, {"none": "none", "x": "x"})["standard_error"] is None
    alone = choose(UNGUIDED, UNGUIDED, ROUNDS, 0.5, lambda name, unit: LEVELS[name])
    assert (alone.chosen, alone.best_other, alone.difference) == ("none b", None, None)


def test_the_record_has_all_candidates_the_one_that_was_compared_longest_and_best_first() -> None:
    choice = choose(list(LEVELS), UNGUIDED, ROUNDS, 0.4, lambda name, unit: LEVELS[name])
    record = as_record(choice, {name: name.upper() for name in LEVELS})
    assert [(each["candidate"], each["units"]) for each in record["candidates"]] == [
        *(("Y", 6), ("NONE B", 6), ("X", 2), ("NONE A", 2), ("Z", 2))
    ]
    assert (record["chosen"], record["unguided"], record["best_other"]) == ("Y", "NONE B", "Y")
