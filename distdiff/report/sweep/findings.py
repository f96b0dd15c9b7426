"""What a sweep has found, in sentences."""

from collections.abc import Sequence

from distdiff.report.sweep.choosing import Choice, Gain, problems
from distdiff.report.sweep.figure import not_drawn
from distdiff.report.sweep.jobs import number
from distdiff.report.sweep.settings import GUIDANCE, RHO, UNTOLD, Setting, Sweep
from distdiff.study.measures import ACCURACY
from distdiff.study.methods import UNGUIDED
from distdiff.study.statistics import CONFIDENCE, Interval
from distdiff.wording import counted, some

LONG = 8  # characters of a number; a longer one is shown with four digits
SURE = f"{CONFIDENCE:.0%}"
ADD_UNGUIDED = "'study.methods=[none,chosen]' adds it"


def headline(sweep: Sweep, choice: Choice) -> str:
    """Which setting to use, and how sure that is, in two sentences at most."""
    where = [f"For {choice.problem}:"] if choice.problem else []
    if len(choice.units) < 2:
        return " ".join([*where, _guess(sweep, choice)])
    sure = _sure_of_unguided if choice.guides_not(choice.chosen) else _sure_of_guidance
    return " ".join([*where, _use(sweep, choice), sure(sweep, choice)])


def details(sweep: Sweep, choice: Choice) -> list[str]:
    """What the headline rests on: the differences to unguided expansion, and how the choice was made."""
    if len(choice.units) < 2:
        return []
    return [*_differences(sweep, choice), _rule(sweep, choice)]


def without_choice(sweep: Sweep) -> str:
    """Why no setting is chosen."""
    if not sweep.settings:
        return "All jobs failed, so there is nothing to compare."
    known = problems(sweep)
    if not known:
        return f"The jobs of {sweep.command} have no accuracy, so this page shows what they have and chooses nothing."
    if any(len(settings) > 1 for settings in known.values()):
        return "No data seed is common to all settings, so they cannot be compared fairly and no setting is chosen."
    if len(known) > 1:
        return "Accuracies of these jobs are on different data, so no setting is chosen."
    ((setting,),) = known.values()
    if len(sweep.settings) == 1:
        return "Only one setting has results, so there is nothing to choose from."
    only = name_of(sweep, setting)
    return f"Of {len(sweep.settings)} settings only {only} has an accuracy, so there is nothing to choose from."


def notes(sweep: Sweep, chosen: Sequence[Choice]) -> list[str]:
    """What limits the findings."""
    found = []
    if any(setting.of(ACCURACY) for setting in sweep.settings):
        found.append(_about_accuracy(sweep))
    found.append(_about_intervals(sweep, has_differences=any(choice.gains for choice in chosen)))
    if sweep.only_means:
        found.append(
            "Jobs that share a directory leave only the files of the last job, so only means are known of them."
        )
    for choice in chosen:
        found += _left_out(sweep, choice)
    for problem, settings in problems(sweep).items() if chosen else ():
        if len(settings) == 1:
            found.append(
                f"No setting is chosen for {problem}, where only {name_of(sweep, settings[0])} has an accuracy."
            )
    if few := not_drawn(sweep):
        found.append(few)
    if chosen:
        number_of = counted(chosen[0].num_distinct, "setting")
        found.append(
            f"The accuracy of the best of {number_of}, chosen and measured on the same images, is too high an estimate for "
            "new images. The more settings and the fewer data seeds there are, the larger is this error."
        )
    return found


def name_of(sweep: Sweep, setting: Setting) -> str:
    """A setting by its keys: ρ = 1, or guidance.rho=1 and guidance=direct."""
    keys = [key for key in sweep.keys if key not in sweep.problems]
    if setting.is_unguided:
        others = [key for key in keys if key not in (RHO, GUIDANCE) and setting.given[key] != UNTOLD]
        beside = "".join(f", {key}={_short(setting.given[key])}" for key in others)
        return f"unguided expansion ({GUIDANCE}={UNGUIDED}{beside})"
    if keys == [RHO]:
        return f"ρ = {_short(setting.given[RHO])}"
    return " and ".join(f"{key}={_short(setting.given[key])}" for key in keys) or "the setting"


def _short(text: str) -> str:
    """A number that a sweeper has drawn, with few digits; any other value as it is.

    >>> _short("0.2052442328702349"), _short("0.125"), _short("1000000000000000")
    ('0.2052', '0.125', '1000000000000000')
    """
    return f"{number(text):.4g}" if len(text) > LONG and "." in text and number(text) is not None else text


def _guess(sweep: Sweep, choice: Choice) -> str:
    """With one data seed."""
    best = f"{_capital(_full_name(sweep, choice))} has the highest accuracy, {choice.mean(choice.best):.3f}"
    return f"{best}, but this is a guess: with one data seed, other training images may order the settings differently."


def _use(sweep: Sweep, choice: Choice) -> str:
    """The first sentence: what to use, and why."""
    used, accuracy = _full_name(sweep, choice), f"{choice.mean(choice.chosen):.3f}"
    if choice.chosen is choice.best:
        same = (choice.chosen, choice.twin)
        others = [each for each in choice.compared if not any(each is one for one in same)]
        if accuracy in (f"{choice.mean(each):.3f}" for each in others):
            return f"Use {used}: no other {_noun(sweep)} has a higher mean accuracy than {accuracy}."
        return f"Use {used}: it has the highest mean accuracy, {accuracy}."
    best = f"{name_of(sweep, choice.best)} ({choice.mean(choice.best):.3f})"
    if choice.guides_not(choice.chosen):
        return f"Use {used}: its mean accuracy, {accuracy}, is within one standard error of the best, {best}."
    return (
        f"Use {used}: with a mean accuracy of {accuracy}, it is the smallest strength "
        f"within one standard error of the best, {best}."
    )


def _full_name(sweep: Sweep, choice: Choice) -> str:
    """The name of what is chosen, which says so where it is no guidance."""
    name = name_of(sweep, choice.chosen)
    if choice.twin is not None and choice.twin.given.get(GUIDANCE) != UNGUIDED:
        return f"{name.removesuffix(')')}, the same as {name_of(sweep, choice.twin)})"
    return (
        name if choice.chosen.is_unguided or not choice.guides_not(choice.chosen) else f"{name}, which is no guidance"
    )


def _sure_of_unguided(sweep: Sweep, choice: Choice) -> str:
    """How sure it is to use no guidance."""
    gain = choice.best_guided
    if gain is None:
        return _sure_among(sweep, choice)
    higher = [each for each in choice.settled if each.difference.mean > 0]
    if higher:
        better = max(higher, key=lambda each: each.difference.mean)
        return f"This is not sure: {name_of(sweep, better.setting)} is measurably more accurate than it ({_points(better)})."
    name = f"{name_of(sweep, gain.setting)}, the best {_noun(sweep)} with guidance,"
    if gain.difference.settled:
        return f"This is quite sure: {name} is measurably less accurate ({_points(gain)})."
    return f"This is not sure: {name} differs from it by {_points(gain)}, so this {_noun(sweep)} may help or harm."


def _sure_of_guidance(sweep: Sweep, choice: Choice) -> str:
    """How sure it is to use this guidance: against unguided expansion, and against the other settings."""
    gain = choice.gain_of(choice.chosen)
    if gain is None:
        return _sure_among(sweep, choice)
    others = _also_within(sweep, choice)
    if not gain.difference.settled:
        also = f", and {others} too" if others else ""
        return (
            "This is not sure: the difference to unguided expansion is "
            f"{_points(gain)}, so guidance may not help at all{also}."
        )
    if gain.difference.mean < 0:
        return f"This is not sure: it is measurably less accurate than unguided expansion ({_points(gain)})."
    helps = f"that guidance helps ({_points(gain)})"
    if others:
        return f"It is quite sure {helps}, but not which {_noun(sweep)} is best: {others} too."
    return f"It is quite sure {helps}, and no other {_noun(sweep)} is within one standard error of the best."


def _sure_among(sweep: Sweep, choice: Choice) -> str:
    """How sure the choice is among the settings, where nothing is known of unguided expansion."""
    unknown = sweep.command == "run" and not choice.gains and not choice.unguided
    missing = f"whether guidance helps is not known, as the jobs have no unguided row ({ADD_UNGUIDED})"
    if others := _also_within(sweep, choice):
        return f"This is not sure: {others} too{f', and {missing}' if unknown else ''}."
    alone = f"no other {_noun(sweep)} is within one standard error of it over {_repeats(choice)}"
    return f"This is fairly sure: {alone}{f', but {missing}' if unknown else ''}."


def _also_within(sweep: Sweep, choice: Choice) -> str:
    """The other candidates that are within one standard error of the best, as the beginning of a clause; or empty."""
    same = (choice.chosen, choice.twin)
    others = [name_of(sweep, each) for each in choice.within if not any(each is one for one in same)]
    if not others:
        return ""
    verb = "is" if len(others) == 1 else "are"
    of_what = "of the best" if choice.chosen is not choice.best else "of it"
    return f"{some(others)} {verb} within one standard error {of_what}"


def _noun(sweep: Sweep) -> str:
    return "strength" if set(sweep.keys) == {RHO} else "setting"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text.startswith(("unguided", "the")) else text


def _differences(sweep: Sweep, choice: Choice) -> list[str]:
    """Which settings can be told from unguided expansion, and what the intervals are."""
    if not choice.gains:
        return []
    noun = _noun(sweep)
    found = [
        f"Differences from unguided expansion are paired over {_repeats(choice)}. "
        f"Their {SURE} intervals hold together for {counted(len(choice.gains), noun)}."
    ]
    for word, sign in (("more", 1), ("less", -1)):
        names = [name_of(sweep, gain.setting) for gain in choice.settled if gain.difference.mean * sign > 0]
        if names:
            found.append(f"Measurably {word} accurate than unguided expansion: {some(names)}.")
    if not choice.settled:
        found.append(f"No {noun} is distinguishable from unguided expansion here.")
    elif unsettled := [name_of(sweep, gain.setting) for gain in choice.gains if not gain.difference.settled]:
        found.append(f"The intervals of {some(unsettled)} include zero.")
    return found


def _rule(sweep: Sweep, choice: Choice) -> str:
    """How the choice was made."""
    others = [key for key in sweep.keys if key != RHO and key not in sweep.problems]
    has_strength = RHO in sweep.keys
    if not has_strength and not choice.unguided:
        return "The setting with the highest mean accuracy is chosen, because no value of these keys is simpler than another."
    within = "within one standard error of the best"
    otherwise = f"the smallest strength {within}" if has_strength else "the best setting"
    if choice.unguided:
        rule = f"Unguided expansion is the simplest, so it is chosen if it is {within}; otherwise {otherwise} is."
    else:
        rule = f"Of the strengths {within} the smallest is chosen, because weaker guidance is simpler."
    if has_strength and others:
        verb, whose = ("keeps", "its value") if len(others) == 1 else ("keep", "their values")
        rule += f" {some(others)} {verb} {whose} in the best setting, because only smaller strengths are simpler."
    return f"{rule} The standard error is that of the paired difference from the best."


def _left_out(sweep: Sweep, choice: Choice) -> list[str]:
    """Settings and data seeds that are not compared."""
    found = []
    if choice.left_out:
        names = some([name_of(sweep, each) for each in choice.left_out])
        found.append(f"Not compared, because they lack data seeds that the others have: {names}.")
    if any(len(each.of(ACCURACY)) > len(choice.units) for each in choice.compared):
        found.append(
            f"Settings are compared over {_repeats(choice)}; further ones, which not all of them have, do not count."
        )
    return found


def _points(gain: Gain) -> str:
    """A difference with its interval."""
    if gain.difference.lacks_spread:
        return f"{gain.difference.mean:+.3f} in every data seed, and without spread there is no interval"
    return f"{gain.difference.mean:+.3f} {ends(gain.difference.interval)}".strip()


def ends(found: Interval | None) -> str:
    """The ends of an interval as text; empty without one."""
    return "" if found is None else f"[{found.low:+.3f}, {found.high:+.3f}]"


def _repeats(choice: Choice) -> str:
    folds, seeds = {fold for fold, _ in choice.units}, {seed for _, seed in choice.units}
    of_seeds = counted(len(seeds), "data seed")
    return of_seeds if len(folds) == 1 else f"{counted(len(folds), 'fold')} and {of_seeds}"


def _about_accuracy(sweep: Sweep) -> str:
    of_row = (
        "of classifiers trained on the real images and those that a job's settings make"
        if sweep.command == "run"
        else "of the job's classifier"
    )
    if sweep.split == "test":
        return (
            f"Accuracy is that {of_row}, on test images. Choosing on them makes them unfit for the final test: sweep on "
            "validation images, which is the default of a multirun."
        )
    return f"Accuracy is that {of_row}{f', on {sweep.split} images' if sweep.split else ''}."


def _about_intervals(sweep: Sweep, has_differences: bool) -> str:
    if len(sweep.units) < 2:
        return (
            "There is one data seed, so there are no intervals. study.seeds=5 gives them."
            if (sweep.command == "run")
            else "There is one seed, so there are no intervals. Several seeds (-m … seed=0,1,2) give them."
        )
    several = len({fold for fold, _ in sweep.units}) > 1
    folds = " Folds share training images, so their intervals are too narrow." if several else ""
    more = ""
    if has_differences:
        more = (
            "; those of differences in accuracy from unguided expansion hold together. Small dots are single data seeds, and a "
            "grey band is the interval of unguided expansion"
        )
    jobs = [job for setting in sweep.settings for job in setting.jobs]
    same = " All data seeds train on the same real images, so intervals leave out how much their choice matters."
    fixed = same if jobs and all(job.are_drawn is False for job in jobs) and not several else ""
    return f"Intervals are {SURE} Student t intervals of means over data seeds, each by itself{more}.{folds}{fixed}"
