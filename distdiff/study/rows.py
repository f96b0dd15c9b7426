"""The rows of a study: each has a name and the configuration with which its images are made and its classifier is trained.

A row's name is `original`, or an option of `method`, of `guidance` (used with img2img) or of `augmentation` (a policy
that makes the copies). Any name but `original` may be followed by a plus and an option of `selection`, as in
`none+energy`. A name may end in `_best`, as in `original_best`: the same images, trained on with the settings that are
best for them on validation images. Further rows are defined by overrides in `study.rows`. With `study.factors`, there is
a row for each factor in the place of each row that adds images, as in `none@5`. This module imports nothing heavy.
"""

from collections.abc import Callable, Container, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.config.command import OPTIONS, ROWS
from distdiff.errors import UserError
from distdiff.expansion.naming import PLUS, row_name
from distdiff.keys.suggesting import one_of
from distdiff.methods.config import AUGMENTATION, IMG2IMG, NO_COPIES, POLICY, needs_of
from distdiff.selection.config import ALL
from distdiff.study.methods import BEST, CHOSEN, ORIGINAL, at_factor, best_of

OptionsOf = Callable[[str], list[str]]
# The groups that the overrides of `study.rows` may change: how images are made, and how the row's classifier is trained.
CHANGEABLE = (
    *("generator", "encoder", "prototype", "energy", "guidance", "method", "selection", "expansion"),
    *("classifier", "augmentation", "optimizer", "train"),
)
KINDS = ("method", "guidance", "augmentation")  # the groups whose options name rows


@dataclass(frozen=True)
class Row:
    """A row: `config` is the job's configuration with the row's changes.

    `base` is its name in `study.methods` or `study.rows`. `expands` is False only for the original images. `best` is True
    if the row is trained with the settings that are best for its images, which are then the images of the row `images`.
    `factor` is that of `study.factors`, None without these.
    """

    base: str
    config: DictConfig
    expands: bool = True
    best: bool = False
    factor: int | None = None

    @property
    def name(self) -> str:
        """The row's name in the results, which no other row has."""
        return at_factor(self.base, self.factor)

    @property
    def made_by(self) -> str:
        """The name, without a factor, of the row whose images this row trains on."""
        return self.base.removesuffix(BEST) if self.best else self.base

    @property
    def images(self) -> str:
        """The name of the row whose images this row trains on: its own, without `_best`."""
        return at_factor(self.made_by, self.factor)

    @property
    def folder(self) -> str:
        """The name of the folder with the row's images.

        All factors share a folder, since a larger factor only adds images, unless images are selected for each factor.
        """
        return self.made_by if self.config.selection.name == ALL else self.images


def needs_generator(row: Row) -> bool:
    """Whether the diffusion model makes the images of a row."""
    return row.expands and "generator" in needs_of(row.config.method)


@dataclass(frozen=True)
class Named:
    """The meaning of a row's name: an `option` of `group` (`method`, `guidance` or `augmentation`), and a `selection`."""

    group: str
    option: str
    selection: str = ALL

    @property
    def method(self) -> str:
        """The option of `method` with which the row's images are made."""
        return {"guidance": IMG2IMG, "augmentation": AUGMENTATION}.get(self.group, self.option)


def named(name: str, options_of: OptionsOf) -> Named | None:
    """The meaning of a row's name, without `_best`; None for `original`. Raises `UserError` for an unknown name."""
    base, plus, selection = without_best(name, options_of).partition(PLUS)
    known = known_rows(options_of)
    if base == ORIGINAL and plus:
        raise UserError(f"study.methods={name} is not allowed: there is nothing to select from the original images")
    if base not in (ORIGINAL, *known):
        raise UserError(f"study.methods={name} is not allowed: {one_of(base, [ORIGINAL, *known])}")
    if plus and selection not in (selections := options_of("selection")):
        raise UserError(f"study.methods={name} is not allowed: behind the plus {one_of(selection, selections)}")
    return None if base == ORIGINAL else Named(known[base], base, selection or ALL)


def without_best(name: str, options_of: OptionsOf) -> str:
    """The name without `_best` at its end, unless an option of a group is called so."""
    last = name.rpartition(PLUS)[2]
    group_has = last in options_of("selection") if PLUS in name else last in known_rows(options_of)
    return name if group_has else name.removesuffix(BEST)


def known_rows(options_of: OptionsOf) -> dict[str, str]:
    """Maps each name (except `original`) that a row may have before the plus to the group to which the name belongs."""
    policies = [name for name in options_of("augmentation") if name not in NO_COPIES]
    groups = {"augmentation": policies, "guidance": options_of("guidance"), "method": options_of("method")}
    return {name: group for group, names in groups.items() for name in names}


def row_names(config: DictConfig) -> list[str]:
    """The names of all rows without repetition: those in `study.methods`, then those in `study.rows`."""
    return list(dict.fromkeys([*methods_of(config), *further_rows(config)]))


def methods_of(config: DictConfig) -> list[str]:
    """The names in `study.methods`, with the row of the job's keys in the place of `chosen`, and `chosen_best` too."""
    of_keys = row_name(config)
    meant = {CHOSEN: of_keys, best_of(CHOSEN): best_of(of_keys)}
    return [meant.get(name, name) for name in config.study.methods]


def chosen_row(config: DictConfig, rows: Container[str]) -> str:
    """The name of the row that the job's keys choose, with the largest of `study.factors`; `rows` are the names of all.

    If only the row of this name with `_best` is there, it is that one.
    """
    chosen = at_factor(row_name(config), max(config.study.factors or [None]))
    return best_of(chosen) if chosen not in rows and best_of(chosen) in rows else chosen


def further_rows(config: DictConfig) -> Mapping[str, Any]:
    """The rows in `study.rows`: a mapping from each row's name to its overrides."""
    return config.study.rows or {}


def references(config: DictConfig, options_of: OptionsOf) -> Iterator[tuple[str, str]]:
    """Yields (group, option) for every option that the rows in `study.methods` need and the job's keys do not choose."""
    for name in row_names(config):
        if name in further_rows(config) or (row := named(name, options_of)) is None:
            continue
        wanted = {"method": row.method, row.group: row.option, "selection": row.selection}
        for group, option in wanted.items():
            if group == "augmentation" or config[group].name != option:
                yield group, option


def rows_of(config: DictConfig) -> list[Row]:
    """All rows of a study. The configuration must be complete and checked."""
    rows = [_row(config, name) for name in row_names(config)]
    if config.study.factors is None:
        return rows
    factors = list(dict.fromkeys(config.study.factors))
    return [each for row in rows for each in ([_enlarged(row, factor) for factor in factors] if row.expands else [row])]


def _row(config: DictConfig, name: str) -> Row:
    """The row that `study.methods` or `study.rows` calls `name`."""
    if name in further_rows(config):
        return Row(name, _merged(config, config[OPTIONS][ROWS][name]))
    best = is_best(config, name)
    base = name.removesuffix(BEST) if best else name
    if base == ORIGINAL:
        return Row(name, config, expands=False, best=best)
    return Row(name, _configured(config, _known(config, base)), best=best)


def _enlarged(row: Row, factor: int) -> Row:
    config = deepcopy(row.config)
    config.expansion.factor = factor
    return replace(row, config=config, factor=factor)


def is_best(config: DictConfig, name: str) -> bool:
    """Whether the row `name` of `study.methods` is trained with the settings that are best for its images."""
    if not name.endswith(BEST) or name in further_rows(config):
        return False
    group, last = ("selection" if PLUS in name else None), name.rpartition(PLUS)[2]
    return not any(_has(config, each, last) for each in ([group] if group else KINDS))


def _known(config: DictConfig, name: str) -> Named:
    """The meaning of a row's name, found among the options that the configuration holds."""
    base, _, selection = name.partition(PLUS)
    return Named(next(group for group in KINDS if _has(config, group, base)), base, selection or ALL)


def _has(config: DictConfig, group: str, option: str) -> bool:
    """Whether the configuration holds an option from which rows may have their name."""
    # The `augmentation` keys are excluded: they choose what classifiers train with, not how copies are made.
    chosen = group != "augmentation" and config[group].name == option
    return chosen or option in config[OPTIONS].get(group, {})


def _configured(config: DictConfig, row: Named) -> DictConfig:
    """The job's configuration with the options that a row's name chooses."""
    changed: dict[str, Any] = {"method": _option(config, "method", row.method)}
    if row.group == "guidance":
        changed["guidance"] = _option(config, "guidance", row.option)
    if row.group == "augmentation":
        changed["method"] = OmegaConf.merge(changed["method"], {POLICY: row.option})
    changed["selection"] = _option(config, "selection", row.selection)
    return _merged(config, changed)


def _option(config: DictConfig, group: str, option: str) -> DictConfig:
    return config[group] if config[group].name == option else config[OPTIONS][group][option]


def _merged(config: DictConfig, changed: Any) -> DictConfig:
    """The job's configuration with the groups in `changed` replaced."""
    merged = OmegaConf.to_container(config, resolve=True)
    for group in CHANGEABLE:
        if group in changed:
            merged[group] = changed[group]
    if OPTIONS in changed:
        merged[OPTIONS] = OmegaConf.merge(config[OPTIONS], changed[OPTIONS])
    return OmegaConf.create(merged)
