"""Chooses a setting by the one-standard-error rule, and says how sure the choice is.

The rule (Breiman et al., 1984, for pruning trees): of all candidates whose accuracy is within one standard error of the
best, take the simplest. Here weaker guidance is simpler, and unguided expansion is the simplest. No value of another key
is simpler than others, so these keys keep the values of the best. The error is that of the difference to the best, paired
by data seed, because settings share the training images of a data seed.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from distdiff.report.sweep.jobs import Unit
from distdiff.report.sweep.settings import RHO, Setting, Sweep
from distdiff.study.measures import ACCURACY
from distdiff.study.statistics import PairedDifference, paired_difference, simultaneous

TOLERANCE = 1e-9  # accuracies that differ by less are equal
DIGITS = 9  # to which means are rounded, for the same reason
NUM_TRAIN = "num_train"


@dataclass(frozen=True)
class Gain:
    """The accuracy of a setting minus that of unguided expansion, paired by data seed. The interval is simultaneous."""

    setting: Setting
    difference: PairedDifference


@dataclass(frozen=True)
class Choice:
    """The candidate that is chosen of those on the same data, which are compared over the data seeds `units`.

    The candidates `compared` are settings and, where jobs have a row `none`, unguided expansion (`Setting.is_unguided`),
    once for each set of values that settings share. `best` has the highest accuracy, `within` are the candidates within one
    standard error of it, and `chosen` is one of these. With a single data seed there is no error, `within` is empty, and
    the best is chosen. `gains` are the differences to unguided expansion, whose intervals hold together. `left_out` are
    settings that lack data seeds, and can therefore not be compared fairly.
    """

    problem: str
    units: tuple[Unit, ...]
    compared: tuple[Setting, ...]
    best: Setting
    chosen: Setting
    within: tuple[Setting, ...]
    gains: tuple[Gain, ...]
    left_out: tuple[Setting, ...] = ()

    def mean(self, setting: Setting) -> float:
        """The mean accuracy over the data seeds that are compared."""
        return _mean(setting, self.units)

    def gain_of(self, setting: Setting) -> Gain | None:
        """The difference of a setting to unguided expansion; None if it is not known."""
        return next((gain for gain in self.gains if gain.setting is setting), None)

    def guides_not(self, setting: Setting) -> bool:
        """Whether a candidate is unguided expansion, or a setting that is the same: of its row `none`, or with ρ = 0."""
        return setting.is_unguided or _stands_for_unguided(setting, self.units)

    @property
    def unguided(self) -> tuple[Setting, ...]:
        """The candidates that are rows of unguided expansion."""
        return tuple(each for each in self.compared if each.is_unguided)

    @property
    def num_distinct(self) -> int:
        """The number of candidates; a setting that is the same as a row of unguided expansion is no further one."""
        twins = [each for each in self.compared if self.unguided and not each.is_unguided and self.guides_not(each)]
        return len(self.compared) - len(twins)

    def only_twin_of(self, unguided: Setting) -> Setting | None:
        """The one setting that is the same as this candidate without guidance; None if there is none, or if there are more."""
        twins = [each for each in unguided.sharing if _stands_for_unguided(each, self.units)]
        return twins[0] if len(twins) == 1 else None

    @cached_property
    def twin(self) -> Setting | None:
        """The setting that is the same as the chosen unguided expansion, such as one with ρ = 0; None if there is none."""
        return next((each for each in self.chosen.sharing if _stands_for_unguided(each, self.units)), None)

    @cached_property
    def best_guided(self) -> Gain | None:
        """The gain of the guided setting with the highest accuracy, of those that share the chosen unguided expansion."""
        sharing = self.chosen.sharing or self.compared
        known = [gain for gain in self.gains if any(gain.setting is each for each in sharing)]
        return max(known, key=lambda gain: round(self.mean(gain.setting), DIGITS), default=None)

    @property
    def settled(self) -> list[Gain]:
        """The settings that can be told from unguided expansion."""
        return [gain for gain in self.gains if gain.difference.settled]


def choices(sweep: Sweep) -> list[Choice]:
    """A choice for each dataset of which several settings can be compared."""
    found = [_choice(name, settings, sweep) for name, settings in problems(sweep).items()]
    return [choice for choice in found if choice is not None]


def problems(sweep: Sweep) -> dict[str, list[Setting]]:
    """The settings with an accuracy, by the name of what their data differ in."""
    found: dict[str, list[Setting]] = {}
    for setting in sweep.settings:
        if setting.of(ACCURACY):
            name = ", ".join(f"{key}={setting.given[key]}" for key in sweep.problems)
            found.setdefault(name, []).append(setting)
    return found


def _choice(problem: str, settings: Sequence[Setting], sweep: Sweep) -> Choice | None:
    units = _shared_units(settings)
    compared = [each for each in settings if units and units <= each.of(ACCURACY).keys()]
    if len(compared) < 2:
        return None
    ordered = tuple(sorted(units))
    candidates = [*_unguided(compared, ordered), *compared]
    # Of equally good candidates the simplest is the best.
    best = min(candidates, key=lambda each: (-round(_mean(each, ordered), DIGITS), *_simplicity(each)))
    within = tuple(each for each in candidates if len(units) > 1 and _is_within(_differences(best, each, ordered)))
    like_best = [each for each in within if _is_like(each, best)]
    chosen = min(like_best, key=_simplicity, default=best)
    left_out = tuple(each for each in settings if not any(each is one for one in compared))
    return Choice(problem, ordered, tuple(candidates), best, chosen, within, _gains(compared, ordered), left_out)


def _shared_units(settings: Sequence[Setting]) -> frozenset[Unit]:
    """The data seeds that most settings have exactly, of several such sets the largest, if two settings or more have them.

    Settings with more data seeds are compared over these too. If no two settings have all seeds of one of them, as where a
    different job of each has failed, those that all settings have.
    """
    counts = Counter(frozenset(each.of(ACCURACY)) for each in settings)
    shared = [units for units in counts if sum(units <= others for others in counts.elements()) > 1]
    if shared:
        return max(shared, key=lambda units: (counts[units], len(units)))
    return frozenset.intersection(*counts)


def _unguided(settings: Sequence[Setting], units: Sequence[Unit]) -> list[Setting]:
    """Unguided expansion of the settings whose jobs have the row `none`: once where settings share it."""
    groups: dict[object, list[Setting]] = {}
    for each in settings:
        known = each.unguided.get(ACCURACY, {})
        if any(job.unguided for job in each.jobs) and known.keys() >= set(units):
            values = tuple(
                tuple(each.unguided.get(name, {}).get(unit) for unit in units) for name in (ACCURACY, NUM_TRAIN)
            )
            images = tuple(each.unguided_images.get(unit) for unit in units)
            groups.setdefault((values, images), []).append(each)
    return [Setting.unguided_of(sharing) for sharing in groups.values()]


def _simplicity(setting: Setting) -> tuple[bool, float]:
    """Smaller for a simpler candidate: without guidance, then with a smaller strength."""
    strength = setting.number(RHO) if RHO in setting.given else None
    return not setting.is_unguided, math.inf if strength is None else strength


def _is_like(setting: Setting, best: Setting) -> bool:
    """Whether a candidate has the values of the best in all keys but the strength, or is its unguided expansion."""
    if setting.is_unguided or best.is_unguided:
        return setting is best or any(best is each for each in setting.sharing)
    return all(setting.given[key] == value for key, value in best.given.items() if key != RHO)


def _mean(setting: Setting, units: Sequence[Unit]) -> float:
    return fmean(setting.of(ACCURACY)[unit] for unit in units)


def _differences(best: Setting, other: Setting, units: Sequence[Unit]) -> list[float]:
    return [best.of(ACCURACY)[unit] - other.of(ACCURACY)[unit] for unit in units]


def _is_within(differences: Sequence[float]) -> bool:
    """Whether the mean of `differences` is at most one standard error of it."""
    return fmean(differences) <= stdev(differences) / math.sqrt(len(differences)) + TOLERANCE


def _stands_for_unguided(setting: Setting, units: Sequence[Unit]) -> bool:
    """Whether a setting's row is the row `none` itself, or has ρ = 0 and the accuracies of unguided expansion."""
    if setting.values == setting.unguided:
        return True
    if RHO not in setting.given or setting.number(RHO) != 0:
        return False
    values, baseline = setting.of(ACCURACY), setting.unguided.get(ACCURACY, {})
    known = values.keys() & baseline.keys()
    return all(unit in known and abs(values[unit] - baseline[unit]) <= TOLERANCE for unit in units)


def _gains(settings: Sequence[Setting], units: Sequence[Unit]) -> tuple[Gain, ...]:
    """The differences to unguided expansion of the settings that guide.

    A setting with ρ = 0 does not guide, nor does one whose chosen row is the unguided row itself.
    """
    pairs = []
    for each in settings:
        values, baseline = each.of(ACCURACY), each.unguided.get(ACCURACY, {})
        guides = each.given.get(RHO) is None or each.number(RHO) != 0
        if baseline.keys() >= set(units) and guides and each.values != each.unguided:
            pairs.append((each, [(values[unit], baseline[unit]) for unit in units]))
    confidence = simultaneous(len(pairs))
    return tuple(Gain(each, paired_difference(*zip(*of_units, strict=True), confidence)) for each, of_units in pairs)
