"""The rows of a study: a name each, and the configuration that its images are made and its classifier is trained with.

`original`, or an option of `method`, of `guidance` (img2img with it) or of `augmentation` (as many copies by that policy),
each but `original` with or without an option of `selection` behind a plus: `none+energy`. Further ones are given by
overrides. No heavy imports.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.config.command import OPTIONS, ROWS
from distdiff.config.options import one_of
from distdiff.errors import UserError
from distdiff.expansion.naming import PLUS, row_name
from distdiff.methods.config import AUGMENTATION, IMG2IMG, NO_COPIES, POLICY
from distdiff.study.methods import CHOSEN, ORIGINAL

OptionsOf = Callable[[str], list[str]]
# The groups that the overrides of `study.rows` may change: how images are made, and how the row's classifier is trained.
CHANGEABLE = (
    *("generator", "encoder", "prototype", "energy", "guidance", "method", "selection", "expansion"),
    *("classifier", "augmentation", "train"),
)


@dataclass(frozen=True)
class Row:
    """`config` is that of the job with what the row changes; `expands` is False for the originals alone."""

    name: str
    config: DictConfig
    expands: bool = True


@dataclass(frozen=True)
class Named:
    """A row by name: an option of `group` (of `method`, `guidance` or `augmentation`), and one of `selection`."""

    group: str
    option: str
    selection: str | None = None


def named(name: str, options_of: OptionsOf) -> Named | None:
    """What a name means, None for `original`; raises `UserError` for one that means nothing."""
    base, plus, selection = name.partition(PLUS)
    known = known_rows(options_of)
    if base == ORIGINAL and plus:
        raise UserError(f"study.methods={name} is not allowed: there is nothing to select from the original images")
    if base not in (ORIGINAL, *known):
        raise UserError(f"study.methods={name} is not allowed: {one_of(base, [ORIGINAL, *known])}")
    if plus and selection not in (selections := options_of("selection")):
        raise UserError(f"study.methods={name} is not allowed: behind the plus {one_of(selection, selections)}")
    return None if base == ORIGINAL else Named(known[base], base, selection or None)


def known_rows(options_of: OptionsOf) -> dict[str, str]:
    """What a row but `original` may be called before the plus, and of which group that is an option."""
    policies = [name for name in options_of("augmentation") if name not in NO_COPIES]
    groups = {"augmentation": policies, "guidance": options_of("guidance"), "method": options_of("method")}
    return {name: group for group, names in groups.items() for name in names}


def row_names(config: DictConfig) -> list[str]:
    """The names of all rows, in order, each once."""
    methods = [row_name(config) if name == CHOSEN else name for name in config.study.methods]
    return list(dict.fromkeys([*methods, *further_rows(config)]))


def further_rows(config: DictConfig) -> Mapping[str, Any]:
    """`study.rows`: the overrides of each by its name."""
    return config.study.rows or {}


def references(config: DictConfig, options_of: OptionsOf) -> Iterator[tuple[str, str]]:
    """(group, option) of all that rows by name need besides what the keys of the job choose."""
    for name in row_names(config):
        if name in further_rows(config) or (row := named(name, options_of)) is None:
            continue
        method = {"guidance": IMG2IMG, "augmentation": AUGMENTATION}.get(row.group, row.option)
        wanted = {"method": method, row.group: row.option, "selection": row.selection or "all"}
        for group, option in wanted.items():
            if group == "augmentation" or config[group].name != option:
                yield group, option


def rows_of(config: DictConfig) -> list[Row]:
    """All rows of a study whose configuration is complete and checked."""
    rows = []
    for name in row_names(config):
        if name in further_rows(config):
            rows.append(Row(name, _merged(config, config[OPTIONS][ROWS][name])))
        elif name == ORIGINAL:
            rows.append(Row(name, config, expands=False))
        else:
            rows.append(Row(name, _configured(config, _known(config, name))))
    return rows


def _known(config: DictConfig, name: str) -> Named:
    """What a row's name means, by the options that its configuration has."""

    def has(group: str, option: str) -> bool:
        chosen = group != "augmentation" and config[group].name == option  # which is the one to train with
        return chosen or option in config[OPTIONS].get(group, {})

    base, _, selection = name.partition(PLUS)
    group = next(group for group in ("method", "guidance", "augmentation") if has(group, base))
    return Named(group, base, selection or None)


def _configured(config: DictConfig, row: Named) -> DictConfig:
    """The job's configuration with the options that a row by name chooses."""
    method = {"guidance": IMG2IMG, "augmentation": AUGMENTATION}.get(row.group, row.option)
    changed: dict[str, Any] = {"method": _option(config, "method", method)}
    if row.group == "guidance":
        changed["guidance"] = _option(config, "guidance", row.option)
    if row.group == "augmentation":
        changed["method"] = OmegaConf.merge(changed["method"], {POLICY: row.option})
    changed["selection"] = _option(config, "selection", row.selection or "all")
    return _merged(config, changed)


def _option(config: DictConfig, group: str, option: str) -> DictConfig:
    return config[group] if config[group].name == option else config[OPTIONS][group][option]


def _merged(config: DictConfig, changed: Any) -> DictConfig:
    """The job's configuration with other groups."""
    merged = OmegaConf.to_container(config, resolve=True)
    for group in CHANGEABLE:
        if group in changed:
            merged[group] = changed[group]
    if OPTIONS in changed:
        merged[OPTIONS] = OmegaConf.merge(config[OPTIONS], changed[OPTIONS])
    return OmegaConf.create(merged)
