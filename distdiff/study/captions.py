"""What the numbers of a study are, in sentences."""

from collections import Counter
from collections.abc import Mapping, Sequence

from distdiff.study.methods import BEST, UNGUIDED, best_of
from distdiff.study.runs import MethodResult
from distdiff.wording import counted

COMPARED_WITH_BEST = (
    f"vs {UNGUIDED}: other rows that end in {BEST} are compared with {best_of(UNGUIDED)}, whose settings were chosen in the "
    "same way."
)


def design(rows: Sequence[MethodResult], are_drawn: bool) -> str:
    """What varies between a row's runs, and how often: `10 draws of the training images × 3 training seeds`.

    `are_drawn` says whether each data seed draws training images of its own.
    """
    of_seeds = rows[0].of_seeds()
    trainings, words = len(of_seeds[0]), _data_seeds(len(of_seeds), are_drawn)
    return words if trainings == 1 else f"{words} × {trainings:,} training seeds"


def _data_seeds(number: int, are_drawn: bool) -> str:
    kind, behind = ("draw", "of the training images") if are_drawn else ("data seed", "with the same training images")
    return f"{counted(number, kind)} {behind}"


def accuracy_captions(rows: Sequence[MethodResult], are_drawn: bool, num_differences: int) -> list[str]:
    """The sentences below the table of accuracies: what is averaged, and what the intervals are."""
    of_seeds = rows[0].of_seeds()
    trainings = len(of_seeds[0])
    if len(of_seeds) == 1:
        return [f"From {design(rows, are_drawn)}, so there is no standard deviation and no interval."]
    each = "" if trainings == 1 else f", each the mean of {trainings:,} training seeds"
    lines = [f"Accuracy: mean ± standard deviation over {_data_seeds(len(of_seeds), are_drawn)}{each}."]
    if num_differences:
        lines.append(
            f"Difference: mean, paired by {'draw' if are_drawn else 'data seed'}, ± half of its Student t interval: "
            f"95 % simultaneous over {counted(num_differences, 'difference')} (Bonferroni). p: Holm's adjusted p-value."
        )
    return lines


def training_captions(
    rows: Sequence[MethodResult],
    searched: Sequence[str],
    split: str,
    epochs: Mapping[str, int],
    may_end_early: bool = False,
) -> list[str]:
    """How the rows were trained. `searched` are the rows whose settings were chosen on validation images.

    `epochs` has the number of epochs of each row that trains for epochs of its own images. `may_end_early` says whether
    trainings may end before the last of their steps.
    """
    most = "at most " if may_end_early else ""
    lines = []
    for row in rows:
        if row.method in searched:
            settings = Counter(
                f"{runs[0].classifier}, {runs[0].augmentation}, {most}{runs[0].steps:,} steps"
                for runs in row.of_seeds()
            )
            told = "; ".join(f"{words} ({number}×)" for words, number in settings.most_common())
            lines.append(f"{row.method} trains as was best on validation images: {told}.")
    steps = {row.method: _steps(row) for row in rows if row.method not in searched and row.runs[0].steps is not None}
    who = "Every other row" if searched else "Every row"
    passes = {epochs.get(name) for name in steps}
    if steps and len(passes) == 1 and None not in passes:
        told = ", ".join(f"{name} {words}" for name, words in steps.items())
        lines.append(f"{who} trains for {most}{counted(*passes, 'epoch')} of its own images. Steps: {told}.")
    elif len(set(steps.values())) == 1:
        lines.append(f"{who} trains for {most}{next(iter(steps.values()))} steps.")
    elif steps:
        told = ", ".join(f"{name} {words}" for name, words in steps.items())
        lines.append(f"Rows train for different numbers of steps{', at most' if most else ''}: {told}.")
    if searched and split == "validation":
        lines.append("The accuracies are on the same validation images, so those of these rows are too high.")
    return lines


def _steps(row: MethodResult) -> str:
    return " or ".join(f"{steps:,}" for steps in sorted({run.steps for run in row.runs}))
