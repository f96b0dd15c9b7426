"""The command that tests what a sweep has chosen: on test images, with data seeds that the sweep has not seen."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from distdiff.report.sweep.choosing import Choice
from distdiff.report.sweep.settings import GUIDANCE, SEED, UNTOLD, Sweep
from distdiff.study.methods import CHOSEN, ORIGINAL, UNGUIDED
from distdiff.tracking.sweep import FOLD, key_and_value

SPLITS = {"run": "study.split", "train": "train.split"}  # of the commands that test classifiers
SEEDS, METHODS, SEARCH = "study.seeds", "study.methods", "hparams_search"
LEAST_SEEDS = 10
FIRST_SEED = 0
# What only the sweep's own jobs are to have.
DROPPED = (SEED, FOLD, SEEDS, SEARCH, *SPLITS.values())
# What the row of unguided expansion does not read: it is img2img without guidance, and keeps all images.
GUIDED = (GUIDANCE, "method", "selection")


def final_test(sweep: Sweep, choice: Choice) -> str | None:
    """The command line; None for a command that tests nothing."""
    if sweep.command not in SPLITS:
        return None
    typed = choice.chosen.jobs[0].job.overrides
    kept = [item for item in typed if key_and_value(item)[0] not in DROPPED]
    rows = (ORIGINAL, UNGUIDED, CHOSEN)
    if choice.chosen.is_unguided:
        without = [key for key, value in choice.chosen.given.items() if value == UNTOLD]
        kept = [f"{GUIDANCE}={UNGUIDED}", *(item for item in kept if not _is_of(item, (*GUIDED, *without)))]
        rows = (ORIGINAL, UNGUIDED)
    split = f"{SPLITS[sweep.command]}=test"
    used = {seed for _, seed in sweep.units}
    if sweep.command == "train":
        return _line(sweep.command, [*kept, split, f"{SEED}={_unused(used, 1)}"])
    given = next((item for item in kept if key_and_value(item)[0] == METHODS), None)
    methods = f"{METHODS}=[{','.join(rows)}]"
    if given is None:  # the default has rows that nobody chose
        kept.append(methods)
    elif any(name not in given for name in (ORIGINAL, UNGUIDED)):
        kept[kept.index(given)] = methods
    seeds = max(LEAST_SEEDS, len({seed for _, seed in choice.units}))
    return _line(sweep.command, [*kept, split, f"{SEEDS}={seeds}", f"{SEED}={_unused(used, seeds)}"])


def _is_of(override: str, names: Sequence[str]) -> bool:
    """Whether an override is of one of these keys or groups, or of a key in them."""
    key = key_and_value(override)[0].partition("@")[0]
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _unused(used: set[int], count: int) -> int:
    """The first of `count` data seeds that the sweep has not used."""
    taken = any(seed in used for seed in range(FIRST_SEED, FIRST_SEED + count))
    return max(used) + 1 if taken else FIRST_SEED


def _line(command: str, overrides: Sequence[str]) -> str:
    program = Path(sys.argv[0])
    started = ["python", str(program)] if program.suffix == ".py" and program.stem == command else ["distdiff", command]
    return shlex.join([*started, *overrides])
