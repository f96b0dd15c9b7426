"""The `study` keys, and the checks on a study's rows that run before anything loads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.config.arguments import refuse_shared
from distdiff.errors import UserError
from distdiff.expansion.naming import PLUS, row_name
from distdiff.keys import Group, key
from distdiff.keys.suggesting import one_of
from distdiff.methods.config import IMG2IMG
from distdiff.selection.config import ALL
from distdiff.study.measures import ACCURACY, OF_EVERY_EXPANSION
from distdiff.study.methods import CHOSEN, ORIGINAL
from distdiff.study.rows import CHANGEABLE, further_rows, references, row_names

OptionsOf = Callable[[str], list[str]]
FORM = "'study.rows={<name>: [<override>, ...]}'"


@dataclass
class StudyKeys:
    methods: list[str] = key()
    rows: Any = None  # further rows: a mapping from names to lists of overrides
    seeds: int = key(at_least=1)
    split: str | None = key(choices=("test", "validation"))  # null: see the group's `defaults`
    objective: str = key()  # what a job returns to a sweeper, of the chosen row: accuracy or one of the measures


def refers_to(config: DictConfig, options_of: OptionsOf) -> Iterator[tuple[str, str]]:
    """Yields (group, option) for every option that the rows in `study.methods` need and the job's keys do not choose.

    Raises `UserError` if there are no rows, for an unknown row in `study.methods`, and for a row in `study.rows` whose
    name is already taken or is not allowed.
    """
    study = config.study
    if study.rows is not None and not OmegaConf.is_dict(study.rows):
        raise UserError(f"study.rows={study.rows} is not allowed: {FORM}")
    if not study.methods and not study.rows:
        raise UserError("study.methods=[] is not allowed: one or more rows, such as [original, none]")
    found = list(references(config, options_of))
    for name in further_rows(config):
        if not isinstance(name, str):
            raise UserError(f"study.rows.{name} is not allowed: a row's name is text that is no number, {FORM}")
        others = {row_name(config) if method == CHOSEN else method for method in study.methods}
        if name in others | {ORIGINAL, CHOSEN} or PLUS in name:
            raise UserError(f"study.rows.{name} is not allowed: another row has this name, or it has a plus; rename it")
    return iter(found)


def check(config: DictConfig) -> None:
    """Replaces `chosen` in `study.methods` by the name of the row that it stands for.

    Raises `UserError` if `train.expanded` is set, if `study.objective` is not measured, or if a seed of the study would
    be too large. Also raises it if the job's keys choose a `method` or `selection` other than the default, but no row of
    `study.methods` is the row that these keys choose.
    """
    if config.train.expanded is not None:
        raise UserError(
            f"train.expanded={config.train.expanded} is not allowed here: a study expands the data itself; train.py takes it"
        )
    known = [ACCURACY, *config.measure.metrics, *OF_EVERY_EXPANSION]
    if config.study.objective not in known:
        raise UserError(
            f"study.objective={config.study.objective} is not allowed: {one_of(config.study.objective, known)}"
        )
    if config.seed + config.study.seeds > 2**32:
        raise UserError(
            f"study.seeds={config.study.seeds} is not allowed: from seed={config.seed} on there are "
            f"{2**32 - config.seed} seeds up to the largest, {2**32 - 1}"
        )
    names = [name for name in row_names(config) if name not in further_rows(config)]
    config.study.methods = names
    chosen = row_name(config)
    unusual = config.method.name != IMG2IMG or config.selection.name != ALL
    if unusual and chosen not in names:
        raise UserError(
            f"method={config.method.name} selection={config.selection.name} is not read: no row of study.methods is "
            f"{chosen}; add it, or `chosen`"
        )


def variants(config: DictConfig) -> Mapping[str, list[str]]:
    """The overrides of each row in `study.rows`.

    Raises `UserError` for a row that is not a list of overrides, or that changes a group which all rows share.
    """
    found = {}
    for name, overrides in further_rows(config).items():
        if not OmegaConf.is_list(overrides) or not overrides or not all(isinstance(item, str) for item in overrides):
            raise UserError(f"study.rows.{name}={overrides} is not allowed: a list of overrides, {FORM}")
        refuse_shared(f"study.rows.{name}", overrides, CHANGEABLE)
        found[str(name)] = [*overrides, "study.methods=[chosen]"]
    return found


STUDY = Group(
    "study",
    StudyKeys,
    check=check,
    refers_to=refers_to,
    variants=variants,
    defaults={"split": ("test", "validation")},  # settings are chosen on validation data, and sweeps choose settings
)
