"""Chooses a setting by the one-standard-error rule, and says how sure the choice is.

The rule (Breiman et al., 1984, for pruning trees): of all settings whose accuracy is within one standard error of the
best, take the simplest, here the one with the smallest number. The error is that of the difference to the best, paired by
data seed, because settings share the training images of a data seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from distdiff.report.sweep.jobs import Unit
from distdiff.report.sweep.settings import RHO, Setting, Sweep
from distdiff.study.measures import ACCURACY
from distdiff.study.statistics import PairedDifference, paired_difference, simultaneous

TOLERANCE = 1e-9  # accuracies that differ by less are equal


@dataclass(frozen=True)
class Gain:
    """The accuracy of a setting minus that of unguided expansion, paired by data seed. The interval is simultaneous."""

    setting: Setting
    difference: PairedDifference


@dataclass(frozen=True)
class Choice:
    """The setting that is chosen of those on the same data.

    `best` has the highest accuracy, `within` are the settings within one standard error of it, and `chosen` is one of
    these. With a single data seed there is no error, `within` is empty, and the best is chosen. `gains` are the differences
    to unguided expansion, whose intervals hold together. `left_out` are settings that lack data seeds, and can therefore
    not be compared fairly. `order` are the numeric keys by which settings are simpler, the first one first.
    """

    problem: str
    units: tuple[Unit, ...]
    compared: tuple[Setting, ...]
    best: Setting
    chosen: Setting
    within: tuple[Setting, ...]
    gains: tuple[Gain, ...]
    left_out: tuple[Setting, ...] = ()
    order: tuple[str, ...] = ()

    def gain_of(self, setting: Setting) -> Gain | None:
        """The difference of a setting to unguided expansion; None if it is not known."""
        return next((gain for gain in self.gains if gain.setting is setting), None)

    @property
    def settled(self) -> list[Gain]:
        """The settings that can be told from unguided expansion."""
        return [gain for gain in self.gains if gain.difference.settled]

    @property
    def unguided_is_within(self) -> bool:
        """Whether unguided expansion is itself within one standard error of the best setting, or better."""
        if self.gain_of(self.best) is None or len(self.units) < 2:
            return False
        values = [self.best.of(ACCURACY)[unit] - self.best.unguided[ACCURACY][unit] for unit in self.units]
        return _is_within(values)


def choices(sweep: Sweep) -> list[Choice]:
    """A choice for each dataset that several settings with an accuracy share."""
    problems: dict[str, list[Setting]] = {}
    for setting in sweep.settings:
        if setting.of(ACCURACY):
            name = ", ".join(f"{key}={setting.given[key]}" for key in sweep.problems)
            problems.setdefault(name, []).append(setting)
    order = sorted((key for key in sweep.numeric if key not in sweep.problems), key=lambda key: key != RHO)
    return [_choice(name, settings, order, sweep) for name, settings in problems.items() if len(settings) > 1]


def _choice(problem: str, settings: Sequence[Setting], order: Sequence[str], sweep: Sweep) -> Choice:
    units = max((frozenset(each.of(ACCURACY)) for each in settings), key=len)
    compared = tuple(each for each in settings if frozenset(each.of(ACCURACY)) == units)
    left_out = tuple(each for each in settings if each not in compared)
    ordered = tuple(sorted(units))
    # Of equally good settings, the first is the best, which is the one with the smallest number.
    best = max(compared, key=lambda each: round(fmean(each.of(ACCURACY)[unit] for unit in ordered), 9))
    within = tuple(each for each in compared if len(units) > 1 and _is_within(_differences(best, each, ordered)))
    simpler = [each for each in within if sweep.group(each) == sweep.group(best)]
    chosen = min(simpler, key=lambda each: tuple(each.number(key) for key in order)) if order and simpler else best
    return Choice(problem, ordered, compared, best, chosen, within, _gains(compared, units), left_out, tuple(order))


def _differences(best: Setting, other: Setting, units: Sequence[Unit]) -> list[float]:
    return [best.of(ACCURACY)[unit] - other.of(ACCURACY)[unit] for unit in units]


def _is_within(differences: Sequence[float]) -> bool:
    """Whether the mean of `differences` is at most one standard error of it."""
    return fmean(differences) <= stdev(differences) / math.sqrt(len(differences)) + TOLERANCE


def _gains(settings: Sequence[Setting], units: frozenset[Unit]) -> tuple[Gain, ...]:
    """The differences to unguided expansion of the settings that guide.

    A setting with ρ = 0 does not guide, nor does one whose chosen row is the unguided row itself.
    """
    pairs = []
    for each in settings:
        values, baseline = each.of(ACCURACY), each.unguided.get(ACCURACY, {})
        guides = each.given.get(RHO) is None or each.number(RHO) != 0
        if frozenset(baseline) >= units and guides and each.values != each.unguided:
            pairs.append((each, [(values[unit], baseline[unit]) for unit in sorted(units)]))
    confidence = simultaneous(len(pairs))
    return tuple(Gain(each, paired_difference(*zip(*of_units, strict=True), confidence)) for each, of_units in pairs)
