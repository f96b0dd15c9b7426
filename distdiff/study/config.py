"""The `study` keys, and what is checked of its rows before anything loads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.config.arguments import in_grammar
from distdiff.config.composition import parse
from distdiff.errors import UserError
from distdiff.expansion.naming import PLUS, row_name
from distdiff.keys import Group, key
from distdiff.study.methods import CHOSEN, ORIGINAL
from distdiff.study.rows import CHANGEABLE, further_rows, references, row_names

OptionsOf = Callable[[str], list[str]]
FORM = "'study.rows={<name>: [<override>, ...]}'"


@dataclass
class StudyKeys:
    methods: list[str] = key()
    rows: Any = None  # further rows by name, a list of overrides each
    seeds: int = key(at_least=1)
    split: str = key(choices=("test", "validation"))


def refers_to(config: DictConfig, options_of: OptionsOf) -> Iterator[tuple[str, str]]:
    """(group, option) of what rows need whose keys are not the job's own.

    Raises `UserError` for a row that is none, and for a choice that no row is.
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
            raise UserError(f"study.rows.{name} is not allowed: another row is called so; give it a name of its own")
    return iter(found)


def check(config: DictConfig) -> None:
    """Writes the rows' own names into the configuration."""
    if config.train.expanded is not None:
        raise UserError(
            f"train.expanded={config.train.expanded} is not allowed here: a study expands the data itself; train.py takes it"
        )
    names = [name for name in row_names(config) if name not in further_rows(config)]
    config.study.methods = names
    chosen = row_name(config)
    unusual = config.method.name != "img2img" or config.selection.name != "all"
    if unusual and chosen not in names:
        raise UserError(
            f"method={config.method.name} selection={config.selection.name} is not read: no row of study.methods is "
            f"{chosen}; add it, or `chosen`"
        )


def variants(config: DictConfig) -> Mapping[str, list[str]]:
    """The overrides of each of `study.rows`; raises `UserError` for what is none, or changes what rows share."""
    found = {}
    for name, overrides in further_rows(config).items():
        if not OmegaConf.is_list(overrides) or not overrides or not all(isinstance(item, str) for item in overrides):
            raise UserError(f"study.rows.{name}={overrides} is not allowed: a list of overrides, {FORM}")
        for override in parse(in_grammar(list(overrides))):
            group = override.key_or_group.partition(".")[0]
            if group not in CHANGEABLE:
                raise UserError(
                    f"study.rows.{name}: {override.input_line} is not allowed: rows share {group}; one may change "
                    f"{', '.join(CHANGEABLE)}"
                )
        found[str(name)] = [*overrides, "study.methods=[chosen]"]
    return found


STUDY = Group("study", StudyKeys, check=check, refers_to=refers_to, variants=variants)
