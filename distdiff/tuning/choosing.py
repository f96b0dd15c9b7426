"""Successive halving over candidates, and the choice among those that are left."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

Unit = tuple[int, int]  # a repeat and a fold
ROUNDING = 1e-9  # accuracies that are closer than this are the same


@dataclass(frozen=True)
class Choice:
    """The candidate `chosen`, and the best unguided one, with which it was compared.

    `difference` is the mean difference in accuracy of the best other candidate that was left to `unguided`, paired by unit,
    and `error` the standard error of this mean; both are None if there was no other. The units share images, so that the
    error is too small rather than too large. `accuracies` has what each candidate reached on each unit.
    """

    chosen: str
    unguided: str
    best_other: str | None
    difference: float | None
    error: float | None
    accuracies: Mapping[str, Mapping[Unit, float]]


def choose(
    candidates: Sequence[str],
    unguided: Sequence[str],
    rounds: Sequence[Sequence[Unit]],
    keep: float,
    accuracy: Callable[[str, Unit], float],
) -> Choice:
    """Compares all candidates on the units of the first round, those that it leaves on the next one, and so on.

    A round leaves the share `keep` of its candidates with the highest mean accuracy over all units so far, at least two, and
    the best of the candidates `unguided` with them (successive halving, Jamieson & Talwalkar, 2016). Of candidates that
    are equally good the first stays. At the end, the best unguided candidate is chosen unless another one is better by more
    than the standard error of their difference.
    """
    found: dict[str, dict[Unit, float]] = {name: {} for name in candidates}
    left = list(candidates)
    for number, units in enumerate(rounds, 1):
        for unit in units:
            for name in left:
                found[name][unit] = accuracy(name, unit)
        if number < len(rounds):
            left = _survivors(left, unguided, found, keep)
    best_unguided = _best([name for name in left if name in unguided], found)
    others = [name for name in left if name not in unguided]
    if not others:
        return Choice(best_unguided, best_unguided, None, None, None, found)
    best_other = _best(others, found)
    differences = [value - found[best_unguided][unit] for unit, value in found[best_other].items()]
    mean = fmean(differences)
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    chosen = best_other if mean > max(error, ROUNDING) else best_unguided
    return Choice(chosen, best_unguided, best_other, mean, error, found)


def num_evaluations(num_candidates: int, round_sizes: Sequence[int], keep: float) -> int:
    """At least how many units `choose` looks at; at most one more in each round but the first.

    >>> num_evaluations(10, [5, 5, 5], 0.4)
    80
    """
    total = 0
    for size in round_sizes:
        total += num_candidates * size
        num_candidates = _num_kept(num_candidates, keep)
    return total


def _num_kept(number: int, keep: float) -> int:
    return min(number, max(2, math.ceil(number * keep - ROUNDING)))


def _survivors(
    names: Sequence[str], unguided: Sequence[str], found: Mapping[str, Mapping[Unit, float]], keep: float
) -> list[str]:
    ordered = sorted(names, key=lambda name: -round(fmean(found[name].values()), 9))
    kept = {*ordered[: _num_kept(len(names), keep)], _best([name for name in names if name in unguided], found)}
    return [name for name in names if name in kept]


def _best(names: Sequence[str], found: Mapping[str, Mapping[Unit, float]]) -> str:
    return max(names, key=lambda name: round(fmean(found[name].values()), 9))


def as_record(choice: Choice, labels: Mapping[str, str]) -> dict[str, Any]:
    """The choice as plain values, for files: candidates by their labels, the best first."""

    def entry(name: str) -> dict[str, Any]:
        values = choice.accuracies[name].values()
        return {"candidate": labels[name], "accuracy": fmean(values), "units": len(values)}

    ordered = sorted(
        choice.accuracies, key=lambda name: (-len(choice.accuracies[name]), -fmean(choice.accuracies[name].values()))
    )
    return {
        "chosen": labels[choice.chosen],
        "unguided": labels[choice.unguided],
        "best_other": None if choice.best_other is None else labels[choice.best_other],
        "difference": choice.difference,
        "standard_error": None if choice.error in (None, math.inf) else choice.error,
        "candidates": [entry(name) for name in ordered],
    }
