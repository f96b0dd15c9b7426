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

    `difference` is the mean difference in accuracy of the best other candidate to `unguided`, paired by unit, and `error` the
    standard error of this mean; both are None if there was no other. They are from the units of the last round, which did not
    decide what is compared, unless there is only one round (`is_optimistic`). The units share images, so that the error is too
    small rather than too large. `accuracies` has what each candidate reached on each unit.
    """

    chosen: str
    unguided: str
    best_other: str | None
    difference: float | None
    error: float | None
    accuracies: Mapping[str, Mapping[Unit, float]]
    is_optimistic: bool = False


def choose(
    candidates: Sequence[str],
    unguided: Sequence[str],
    rounds: Sequence[Sequence[Unit]],
    keep: float,
    accuracy: Callable[[str, Unit], float],
) -> Choice:
    """Compares all candidates on the units of the first round, those that it leaves on the next one, and so on.

    A round leaves the share `keep` of its candidates with the highest mean accuracy over all units so far, at least two, and
    the best of the candidates `unguided` and of the others with them (successive halving, Jamieson & Talwalkar, 2016). Of
    candidates that are equally good the first stays. In the last round only the best unguided candidate and the best other
    one are left, and the unguided one is chosen unless the other is better there by more than the standard error of the
    difference.
    """
    found: dict[str, dict[Unit, float]] = {name: {} for name in candidates}
    left, others = list(candidates), [name for name in candidates if name not in unguided]
    finalists = left
    for number, units in enumerate(rounds, 1):
        for unit in units:
            for name in left:
                found[name][unit] = accuracy(name, unit)
        if number < len(rounds) or len(rounds) == 1:
            kinds = [[name for name in left if name in kind] for kind in (unguided, others)]
            finalists = [_best(kind, found) for kind in kinds if kind]
            left = _survivors(left, finalists, found, keep) if number < len(rounds) - 1 else finalists
    best_unguided, *others = finalists
    if not others:
        return Choice(best_unguided, best_unguided, None, None, None, found, len(rounds) == 1)
    (best_other,) = others
    differences = [found[best_other][unit] - found[best_unguided][unit] for unit in rounds[-1]]
    mean = fmean(differences)
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    chosen = best_other if mean > max(error, ROUNDING) else best_unguided
    return Choice(chosen, best_unguided, best_other, mean, error, found, len(rounds) == 1)


def num_evaluations(num_candidates: int, round_sizes: Sequence[int], keep: float) -> int:
    """About how many units `choose` looks at; at most two more in each round between the first and the last.

    >>> num_evaluations(10, [5, 5, 5], 0.4)
    80
    """
    total = 0
    for number, size in enumerate(round_sizes, 1):
        total += num_candidates * size
        num_candidates = _num_kept(num_candidates, keep) if number < len(round_sizes) - 1 else min(2, num_candidates)
    return total


def _num_kept(number: int, keep: float) -> int:
    return min(number, max(2, math.ceil(number * keep - ROUNDING)))


def _survivors(
    names: Sequence[str], best: Sequence[str], found: Mapping[str, Mapping[Unit, float]], keep: float
) -> list[str]:
    ordered = sorted(names, key=lambda name: -round(fmean(found[name].values()), 9))
    kept = {*best, *ordered[: _num_kept(len(names), keep)]}
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


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record, of either search, that runs are compared by in a dashboard; none if nothing was compared."""
    names = ("difference", "standard_error", "strength", "agreement")
    return {f"tuning_{name}": record[name] for name in names if record.get(name) is not None}
