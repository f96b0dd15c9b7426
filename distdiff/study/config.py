"""The `study` keys, and which options the rows of a study are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from distdiff.config.options import one_of
from distdiff.errors import UserError
from distdiff.keys import Group, key
from distdiff.study.methods import ORIGINAL, POLICIES_THAT_ADD_NOTHING

OptionsOf = Callable[[str], list[str]]


@dataclass
class StudyKeys:
    methods: list[str] = key()
    seeds: int = key(at_least=1)
    split: str = key(choices=("test", "validation"))


def refers_to(config: DictConfig, options_of: OptionsOf) -> Iterator[tuple[str, str]]:
    """(group, option) of every row but `original` and the chosen guidance, whose keys are `guidance`'s own.

    Raises `UserError` for a name that is none.
    """
    guidance = options_of("guidance")
    policies = [name for name in options_of("augmentation") if name not in POLICIES_THAT_ADD_NOTHING]
    _check(config.study.methods, [ORIGINAL, *guidance, *policies])
    for method in config.study.methods:
        if method not in (ORIGINAL, config.guidance.name):
            yield "guidance" if method in guidance else "augmentation", method


def _check(methods: Sequence[str], known: Sequence[str]) -> None:
    for method in methods:
        if method not in known:
            raise UserError(f"study.methods={method} is not allowed: {one_of(method, list(known))}")
    if not methods:
        raise UserError(f"study.methods=[] is not allowed: one or more of {', '.join(known)}")


STUDY = Group("study", StudyKeys, refers_to=refers_to)
