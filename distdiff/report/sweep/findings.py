"""What a sweep has found, in sentences."""

from collections.abc import Sequence

from distdiff.report.sweep.choosing import Choice, Gain
from distdiff.report.sweep.figure import not_drawn
from distdiff.report.sweep.jobs import number
from distdiff.report.sweep.settings import RHO, Setting, Sweep
from distdiff.study.measures import ACCURACY
from distdiff.study.statistics import CONFIDENCE, Interval
from distdiff.wording import counted, some

LONG = 8  # characters of a number; a longer one is shown with four digits
SURE = f"{CONFIDENCE:.0%}"


def headline(sweep: Sweep, choice: Choice) -> list[str]:
    """Which setting to use, and how sure that is."""
    where = [f"For {choice.problem}:"] if choice.problem else []
    return [" ".join([*where, _chosen(sweep, choice)]), *_sureness(sweep, choice)]


def without_choice(sweep: Sweep) -> str:
    """Why no setting is chosen."""
    if not sweep.settings:
        return "All jobs failed, so there is nothing to compare."
    if not any(setting.of(ACCURACY) for setting in sweep.settings):
        return f"The jobs of {sweep.command} have no accuracy, so this page shows what they have and chooses nothing."
    if len(sweep.settings) == 1:
        return "Only one setting has results, so there is nothing to choose from."
    return "Accuracies of these jobs are on different data, so no setting is chosen."


def notes(sweep: Sweep, chosen: Sequence[Choice]) -> list[str]:
    """What limits the findings."""
    found = []
    if any(setting.of(ACCURACY) for setting in sweep.settings):
        found.append(_about_accuracy(sweep))
    found.append(_about_intervals(sweep))
    if sweep.only_means:
        found.append("Jobs that share a directory leave only their last files, so only means are known of them.")
    for choice in chosen:
        if choice.left_out:
            names = some([name_of(sweep, each) for each in choice.left_out])
            found.append(f"Not compared, because their data seeds are not those of the others: {names}.")
    if few := not_drawn(sweep):
        found.append(few)
    if chosen:
        found.append(
            f"The highest accuracy of {counted(len(chosen[0].compared), 'setting')}, chosen and measured on the same images, "
            "is too high an estimate for new images, the more so the more settings there are and the fewer data seeds."
        )
    return found


def name_of(sweep: Sweep, setting: Setting) -> str:
    """A setting by its keys: ρ = 1, or guidance.rho=1, guidance=direct."""
    keys = [key for key in sweep.keys if key not in sweep.problems]
    if keys == [RHO]:
        return f"ρ = {_short(setting.given[RHO])}"
    return ", ".join(f"{key}={_short(setting.given[key])}" for key in keys) or "the setting"


def _short(text: str) -> str:
    """A number that a sweeper has drawn, with few digits; any other value as it is.

    >>> _short("0.2052442328702349"), _short("0.125"), _short("1000000000000000")
    ('0.2052', '0.125', '1000000000000000')
    """
    return f"{number(text):.4g}" if len(text) > LONG and "." in text and number(text) is not None else text


def _chosen(sweep: Sweep, choice: Choice) -> str:
    used, best = name_of(sweep, choice.chosen), name_of(sweep, choice.best)
    highest = f"highest mean accuracy, {choice.best.mean(ACCURACY):.3f}"
    if len(choice.units) < 2:
        return (
            f"{used} has the {highest}. With one data seed this is a guess: another draw may order the settings anew."
        )
    others = [each for each in choice.within if each not in (choice.best, choice.chosen)]
    also = f" Also within one standard error: {some([name_of(sweep, each) for each in others])}." if others else ""
    if choice.chosen.given.get(RHO) is not None and choice.chosen.number(RHO) == 0:
        used += ", that is, no guidance"
    if choice.chosen is choice.best:
        return f"Use {used}. It has the {highest}.{also}"
    smallest = "is the smallest value" if len(sweep.keys) == 1 else f"has the smallest {choice.order[0]}"
    return (
        f"Use {used}: it {smallest} within one standard error of the best ({choice.chosen.mean(ACCURACY):.3f}). "
        f"{best} has the {highest}.{also}"
    )


def _sureness(sweep: Sweep, choice: Choice) -> list[str]:
    noun = "strength" if set(sweep.keys) == {RHO} else "setting"
    if not choice.gains:
        if any(each.values == each.unguided for each in choice.compared):
            return []
        missing = (
            "How sure this is cannot be said: the jobs have no unguided row. Add it: 'study.methods=[none,chosen]'."
        )
        return [missing] if sweep.command == "run" else []
    if len(choice.units) < 2:
        return ["With one data seed, no setting can be told from unguided expansion."]
    found = []
    held = f"{SURE} intervals that hold together for {counted(len(choice.gains), noun)}, paired over {_repeats(choice)}"
    shown = choice.chosen if choice.gain_of(choice.chosen) else choice.best
    if (gain := choice.gain_of(shown)) is not None:
        found.append(f"{name_of(sweep, shown)} against unguided expansion: {_points(gain)} ({held}).")
    if not choice.settled:
        found.append(f"No {noun} is distinguishable from unguided expansion here.")
    else:
        better = [gain for gain in choice.settled if gain.difference.mean > 0]
        worse = [gain for gain in choice.settled if gain.difference.mean < 0]
        for word, gains in (("more", better), ("less", worse)):
            if gains:
                names = some([name_of(sweep, gain.setting) for gain in gains])
                found.append(f"Measurably {word} accurate than unguided expansion: {names}.")
    if choice.unguided_is_within and choice.gain_of(choice.chosen) is not None:
        found.append(
            "Unguided expansion is itself within one standard error of the best, so the same rule would choose no guidance."
        )
    return found


def _points(gain: Gain) -> str:
    found = gain.difference.interval
    return f"{gain.difference.mean:+.3f} accuracy {ends(found)}"


def ends(found: Interval | None) -> str:
    """The ends of an interval as text; empty without one."""
    return "" if found is None else f"[{found.low:+.3f}, {found.high:+.3f}]"


def _repeats(choice: Choice) -> str:
    folds, seeds = {fold for fold, _ in choice.units}, {seed for _, seed in choice.units}
    of_seeds = counted(len(seeds), "data seed")
    return of_seeds if len(folds) == 1 else f"{counted(len(folds), 'fold')} and {of_seeds}"


def _about_accuracy(sweep: Sweep) -> str:
    of_row = "of the row that the job's keys choose" if sweep.command == "run" else "of the job's classifier"
    if sweep.split == "test":
        return (
            f"Accuracy is that {of_row}, on test images. Choosing on them makes them unfit for the final test: sweep on "
            "validation images, which is the default of a multirun."
        )
    return f"Accuracy is that {of_row}{f', on {sweep.split} images' if sweep.split else ''}."


def _about_intervals(sweep: Sweep) -> str:
    if len(sweep.units) < 2:
        return (
            "There is one data seed, so there are no intervals. study.seeds=5 gives them."
            if (sweep.command == "run")
            else "There is one seed, so there are no intervals. Several seeds (-m … seed=0,1,2) give them."
        )
    several = len({fold for fold, _ in sweep.units}) > 1
    folds = " Folds share training images, so their intervals are too narrow." if several else ""
    return f"Intervals are {SURE} Student t intervals of means over data seeds, each by itself unless said otherwise.{folds}"
