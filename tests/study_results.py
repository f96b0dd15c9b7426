"""The results of a study, made from accuracies."""

from collections.abc import Sequence
from typing import Any

from distdiff.study.results import StudyResults
from distdiff.study.runs import MethodResult, RunResult

Accuracies = Sequence[float | Sequence[float]]


def results(rows: dict[str, Accuracies], chosen: str = "direct", **more: Any) -> StudyResults:
    """A study's results: for each row the accuracy of each data seed, or a list of those of its training seeds.

    A name may end in a factor, as in `none@5`. Before it, `_best` says that the row's settings are the best for it.
    """
    found = [
        MethodResult(
            name,
            [
                RunResult(seed, accuracy, 10, training_seed=number)
                for seed, of_seed in enumerate(accuracies)
                for number, accuracy in enumerate(of_seed if isinstance(of_seed, Sequence) else [of_seed])
            ],
            factor=int(name.partition("@")[2]) if "@" in name else None,
            best=name.partition("@")[0].endswith("_best"),
        )
        for name, accuracies in rows.items()
    ]
    return StudyResults("digits", "test", chosen, found, {}, **more)
