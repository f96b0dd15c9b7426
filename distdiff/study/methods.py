"""The names of a study's rows that the code treats specially."""

from distdiff.guidance.config import UNGUIDED as UNGUIDED  # also the name of the row without guidance

ORIGINAL = "original"
CHOSEN = "chosen"  # in `study.methods`: stands for the row that the `method`, `guidance` and `selection` keys choose
BEST = "_best"  # ends the name of a row that trains on another row's images with the settings that are best for them
AT = "@"  # stands before the factor in the name of a row of a study with `study.factors`
# The rows without generated images with which expansion may be compared. Of several, the one with the highest
# validation accuracy is taken.
BASELINES = (ORIGINAL, f"{ORIGINAL}{BEST}", f"randaugment{BEST}")


def at_factor(base: str, factor: int | None) -> str:
    """The name of a row with `factor` copies of each source; None: the study has no `study.factors`.

    >>> at_factor("none", 5), at_factor("none", None)
    ('none@5', 'none')
    """
    return base if factor is None else f"{base}{AT}{factor}"


def best_of(name: str) -> str:
    """The name of the row that trains on the images of the row `name` with the settings that are best for them.

    >>> best_of("none"), best_of("none@5")
    ('none_best', 'none_best@5')
    """
    base, at, factor = name.partition(AT)
    return f"{base}{BEST}{at}{factor}"
