"""The `study` keys, and the checks on a study's rows that run before anything loads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.config.arguments import refuse_shared
from distdiff.config.command import OPTIONS, ROWS
from distdiff.errors import UserError
from distdiff.expansion.config import reads_features, small_guide
from distdiff.expansion.naming import PLUS, row_name
from distdiff.keys import Group, key
from distdiff.keys.suggesting import one_of
from distdiff.methods.config import IMG2IMG
from distdiff.selection.config import ALL
from distdiff.study.measures import ACCURACY, OF_EVERY_EXPANSION
from distdiff.study.methods import BASELINES, BEST, CHOSEN, best_of
from distdiff.study.rows import (
    CHANGEABLE,
    further_rows,
    is_best,
    methods_of,
    references,
    row_names,
    rows_of,
    without_best,
)

OptionsOf = Callable[[str], list[str]]
SETTINGS = {"classifiers": "classifier", "augmentations": "augmentation"}  # keys of `study.best`, and their groups
FACTOR = "expansion.factor="
FORM = "'study.rows={<name>: [<override>, ...]}'"


@dataclass
class BestKeys:
    """The settings among which a row that ends in `_best` chooses. A list that is null has the job's own setting."""

    classifiers: list[str] | None = key()
    augmentations: list[str] | None = key()
    steps: list[int] | None = key(
        at_least=1, at_most=10**9
    )  # null: `study.tune_steps`, or `train.steps` once and thrice


@dataclass
class StudyKeys:
    methods: list[str] = key()
    rows: Any = None  # further rows: a mapping from names to lists of overrides
    seeds: int = key(at_least=1)  # draws of the training images, and of everything else that is random
    training_seeds: int = key(at_least=1)  # classifiers that each row trains under each of these seeds
    factors: list[int] | None = key(
        at_least=1, at_most=10**6
    )  # each row that adds images has one row for each of these
    tune_steps: list[int] | None = key(
        at_least=1, at_most=10**9
    )  # each row takes the number that is best on validation
    processes: int | None = key(
        at_least=1, at_most=1024
    )  # processes that make rows side by side; null: as many as are of use
    table: str | None = key()  # a .csv file of finished runs, which are not made again
    best: BestKeys = key()
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
        if name in {*methods_of(config), *BASELINES, CHOSEN, best_of(CHOSEN)} or PLUS in name:
            raise UserError(
                f"study.rows.{name} is not allowed: another row has this name, it is reserved, or it has a plus; rename it"
            )
    if any(name not in further_rows(config) and without_best(name, options_of) != name for name in row_names(config)):
        found += _settings(config, options_of)
    return iter(found)


def _settings(config: DictConfig, options_of: OptionsOf) -> Iterator[tuple[str, str]]:
    """Yields (group, option) for the settings in `study.best` that the job's keys do not choose."""
    for name, group in SETTINGS.items():
        for option in config.study.best[name] or []:
            if option not in (known := options_of(group)):
                raise UserError(f"study.best.{name}={option} is not allowed: {one_of(option, known)}")
            if config[group].name != option:
                yield group, option


def check(config: DictConfig) -> None:
    """Replaces `chosen` and `chosen_best` in `study.methods` by the names of the rows that they stand for.

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
    _check_settings(config.study)
    _check_sizes(config)
    names = [name for name in row_names(config) if name not in further_rows(config)]
    config.study.methods = names
    if config.study.factors is not None:
        config.expansion.factor = max(config.study.factors)
    chosen = row_name(config)
    unusual = config.method.name != IMG2IMG or config.selection.name != ALL
    if unusual and not {chosen, best_of(chosen)}.intersection(names):
        raise UserError(
            f"method={config.method.name} selection={config.selection.name} is not read: no row of study.methods is "
            f"{chosen}; add it, or `chosen`"
        )


def _check_settings(study: DictConfig) -> None:
    """Raises `UserError` for an empty list of settings to choose from, and for a table that is no .csv file."""
    if study.factors is not None and not study.factors:
        raise UserError("study.factors=[] is not allowed: one or more factors, or null")
    lists = {"study.tune_steps": study.tune_steps} | {f"study.best.{name}": value for name, value in study.best.items()}
    for name, value in lists.items():
        if value is not None and not value:
            raise UserError(f"{name}=[] is not allowed: one or more settings to choose from, or null")
    if study.table is not None and not study.table.lower().endswith(".csv"):
        raise UserError(f"study.table={study.table} is not allowed: a .csv file, which is made if it is missing")


def _check_sizes(config: DictConfig) -> None:
    """Raises `UserError` for a network among the settings that sees larger squares than those cut out of the images."""
    named, resize = config.options.get("classifier", {}), config.train.resize
    for name in config.study.best.classifiers or ():
        network = config.classifier if config.classifier.name == name else named[name]
        if resize is not None and resize < network.input_size:
            raise UserError(
                f"train.resize={resize} is not allowed with study.best.classifiers={name}: at least its "
                f"input_size={network.input_size}, as squares of that size are cut out"
            )


def unread(config: DictConfig) -> dict[str, str]:
    """`study.best`, unless a row is trained with the best settings; `expansion.factor`, if `study.factors` are given."""
    found, names = {}, row_names(config)
    if not any(is_best(config, name) for name in names):
        found["study.best"] = f"no row of study.methods ends in {BEST}, such as {BASELINES[1]}"
    if config.study.factors is not None:
        found["expansion.factor"] = "study.factors says how many copies the rows have"
        if set(names) <= set(BASELINES[:2]):
            found["study.factors"] = "no row of study.methods adds images"
    return found


def warn(config: DictConfig) -> Iterator[str]:
    """Yields what `small_guide` says of the first row whose images are shaped by features of the guide."""
    # Rows of study.methods have the job's guide, generator and data, so these configurations suffice to rule the warning
    # out; making those of all rows is slow.
    settings = [config, *(config[OPTIONS][ROWS][name] for name in further_rows(config))]
    if not any(words for each in settings for words in small_guide(each)):
        return
    reading = (row.config for row in rows_of(config) if row.expands and reads_features(row.config))
    yield from islice((words for of_row in reading for words in small_guide(of_row)), 1)


def variants(config: DictConfig, _: object = None) -> Mapping[str, list[str]]:
    """The overrides of each row in `study.rows`.

    Raises `UserError` for a row that is not a list of overrides, or that changes a group which all rows share.
    """
    # A preset may give these keys again. The split is the study's: some values of a row's keys are not allowed with some.
    of_all = ["study.methods=[chosen]", "study.rows=null", "study.factors=null", f"study.split={config.study.split}"]
    found = {}
    for name, overrides in further_rows(config).items():
        if not OmegaConf.is_list(overrides) or not overrides or not all(isinstance(item, str) for item in overrides):
            raise UserError(f"study.rows.{name}={overrides} is not allowed: a list of overrides, {FORM}")
        refuse_shared(f"study.rows.{name}", overrides, CHANGEABLE)
        if config.study.factors is not None and any(item.lstrip("+").startswith(FACTOR) for item in overrides):
            raise UserError(f"study.rows.{name}={overrides} is not allowed: study.factors gives every row its factors")
        found[str(name)] = [*overrides, *of_all]
    return found


STUDY = Group(
    "study",
    StudyKeys,
    check=check,
    warn=warn,
    refers_to=refers_to,
    unread=unread,
    variants=variants,
    paths=("table",),
    defaults={"split": ("test", "validation")},  # settings are chosen on validation data, and sweeps choose settings
)
