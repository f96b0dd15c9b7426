"""Numbers that stand for class names, as `datasets` writes them into tables."""

from collections.abc import Sequence

import numpy as np

from distdiff.wording import counted, some


def first_number(labels: np.ndarray, num_names: int) -> int:
    """The number of the first class: 1 if `labels` count from one, and otherwise 0. A negative label means no label.

    Labels count from one if none is 0 and the largest is the number of names. Raises `ValueError` for labels that are
    not among the names, and says which these are.

    >>> first_number(np.array([0, 2, -1]), 3), first_number(np.array([2, 3, -1]), 3)
    (0, 1)
    """
    given = labels[labels >= 0]
    if not len(given) or given.max() < num_names:
        return 0
    if given.min() > 0 and given.max() == num_names:
        return 1
    strange = given[given >= num_names]
    raise ValueError(
        f"{counted(len(strange), 'row')} with labels that are not among its {counted(num_names, 'class name')}, which are "
        f"numbered from 0: {some(np.unique(strange).tolist())}"
    )


def counting_from_one(column: str, names: Sequence[str]) -> str:
    """Says that labels were taken to count from one."""
    return f"the labels in column {column} count from 1 and are read so: 1 is {names[0]}, {len(names)} is {names[-1]}"
