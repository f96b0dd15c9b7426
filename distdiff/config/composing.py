"""Composes a command's jobs with Hydra's own loader and grammar, before Hydra runs them.

A Hydra that is already active in this process, such as a notebook's, is neither used nor changed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from distdiff.config.arguments import readable
from distdiff.config.command import WITHOUT_KEYS, Command
from distdiff.config.explanations import explain_composition
from distdiff.config.sweeping import values_of
from distdiff.errors import UserError, first_line
from distdiff.keys import TARGET
from distdiff.keys.suggesting import one_of
from distdiff.keys.unmeant import refuse_unmeant
from distdiff.option_files.overrides import parse
from distdiff.option_files.search_path import COMPOSING_ERRORS, OURS, SEARCHPATH, SearchPath, place_of

HYDRA = ("hydra/launcher", "hydra/sweeper")
BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"


@dataclass(frozen=True)
class Job:
    """One composed job, not checked yet.

    `choices` maps each group to its chosen option. `typed` holds the job's overrides, except overrides of Hydra's own
    keys. `swept` is True for a job of a multirun. `sample` is True if the job stands for the jobs that a sweeper will
    choose as it goes, with some value for each swept key; `trying` is the swept override for which this sample has another
    value than the first sample, and None for the first. `chdir` is True if Hydra runs the job in its run directory.
    `inherited` are the (group, option) below `options` that the job has from another one, of which it is a variant and which
    has checked them; the job ignores those to which it does not refer.
    """

    command: Command
    config: DictConfig
    choices: Mapping[str, str]
    typed: tuple[str, ...] = ()
    search: SearchPath = OURS
    swept: bool = False
    sample: bool = False
    trying: str | None = None
    chdir: bool = False
    inherited: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, command: Command, config: DictConfig, typed: Sequence[str], search: SearchPath, **more: Any) -> "Job":
        """The job with this composed configuration, which includes Hydra's own part."""
        choices = {str(name): str(option) for name, option in config.hydra.runtime.choices.items()}
        own = tuple(item for item in typed if not item.lstrip("+~").startswith("hydra"))
        return cls(command, config, choices, own, search, chdir=bool(config.hydra.job.chdir), **more)

    def typed_for(self, full_key: str) -> str | None:
        """The last override of `full_key` or of a key nested in it; None if there is no such override."""
        for override in reversed(self.typed):
            name = override.partition("=")[0].lstrip("+")
            if name == full_key or name.startswith(f"{full_key}."):
                return override.lstrip("+")
        return None


def search_path_of(config_dir: str | None, overrides: Iterable[str]) -> SearchPath:
    """The search path of a command line: `config_dir` (`--config-dir`) and the places in `hydra.searchpath`.

    Raises `UserError` for a folder that does not exist.
    """
    places = [] if config_dir is None else [place_of(config_dir)]
    for override in parse(overrides):
        if override.get_key_element().lstrip("+") == SEARCHPATH and isinstance(added := override.value(), list):
            places += map(str, added)
    found = SearchPath(tuple(places))
    for folder in found.folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of configurations (--config-dir, {SEARCHPATH})")
    return found


def compose_jobs(
    command: Command, overrides: Sequence[str], multirun: bool, search: SearchPath | None = None
) -> list[Job]:
    """All jobs that `overrides` ask for; there is only one unless `multirun` is set.

    The jobs of a multirun are those that Hydra's basic sweeper makes. Another sweeper chooses its jobs as it goes. The
    first job then has the first value of each swept key. Each further job has another value for one of the keys, every one of
    a choice and the other end of a range or interval, so that a value that is not allowed is found before the sweep begins;
    there is none of these if some jobs may fail (Optuna's `max_failure_rate`). Raises `UserError` if a job cannot be composed.
    """
    overrides = readable(overrides)
    search = search_path_of(None, overrides) if search is None else search
    refuse_unmeant(command.groups, parse(overrides), multirun)
    command.register()
    if not multirun:
        return [_composed(command, overrides, search)]
    sweeper = _compose(command, overrides, search, RunMode.MULTIRUN).hydra.sweeper
    params = [f"{name}={value}" for name, value in (sweeper.get("params") or {}).items()]
    swept = OverridesParser.create(config_loader=search.loader()).parse_overrides([*params, *overrides])
    values = [values_of(override, sweeper) for override in swept]
    if sweeper[TARGET] != BASIC_SWEEPER:
        tried = [each[:1] for each in values] if sweeper.get("max_failure_rate") else values
        return list(_samples(command, swept, tried, search))
    try:
        (chosen,) = BasicSweeper.split_arguments(swept, None)
    except HydraException as error:
        raise UserError(f"{first_line(error)}; hydra/sweeper=optuna does (pip install 'distdiff[optuna]')") from None
    return [_composed(command, given, search, swept=True) for given in chosen]


def vary(job: Job, overrides: Sequence[str], leaving_out: str) -> Job:
    """The job with further `overrides`, and without those of its own overrides that concern the group `leaving_out`.

    If `overrides` choose another option of a group, the job's own overrides of that group's keys are dropped, since the
    new option may not have these keys. Overrides of keys that every option takes are kept.
    """
    overrides, groups = readable(overrides), job.command.groups
    given = parse(overrides)
    changed = {item.key_or_group for item in given}
    other = {
        item.key_or_group for item in given if str(item.value()) != job.choices.get(item.key_or_group)
    } & groups.keys()

    def is_kept(place: str) -> bool:
        group, _, key = place.partition(".")
        if group == leaving_out or place in changed:
            return False
        return group not in other or key in groups[group].taken_everywhere

    kept = [item for item, override in zip(job.typed, parse(job.typed), strict=True) if is_kept(override.key_or_group)]
    (varied,) = compose_jobs(job.command, [*kept, *overrides], multirun=False, search=job.search)
    return replace(varied, swept=job.swept)


def load_options(wanted: Mapping[tuple[str, str], str], search: SearchPath = OURS) -> DictConfig:
    """`{group: {option: keys}}` for each (group, option) in `wanted`, with the keys that the option sets.

    Interpolations in the values of these keys are not resolved. `wanted` maps (group, option) to the configuration key
    that names the option, for error messages. Raises `UserError` for an option that does not exist or whose YAML file
    cannot be read.
    """
    for (group, option), key in wanted.items():
        if option not in (known := search.options(group)):
            raise UserError(f"{key}={option} is not allowed: {one_of(option, known)}")
    try:
        return search.compose_options(wanted)
    except COMPOSING_ERRORS as error:
        raise UserError(first_line(error)) from None


def targets_of(group: str, search: SearchPath = OURS) -> Mapping[str, str]:
    """The `_target_` of each option of a group; options without a `_target_` are left out."""
    targets = {}
    for name in search.options(group):
        with suppress(UserError):  # a file that cannot be read must not hide the other options
            if target := load_options({(group, name): group}, search)[group][name].get(TARGET):
                targets[name] = target
    return targets


def _composed(command: Command, overrides: Sequence[str], search: SearchPath, **more: Any) -> Job:
    return Job.of(command, _compose(command, overrides, search), overrides, search, **more)


def _compose(command: Command, overrides: Sequence[str], search: SearchPath, mode: RunMode = RunMode.RUN) -> DictConfig:
    try:
        return search.compose(command.name, overrides, mode)
    # Hydra raises the others for some mistakes in its own keys, and a ValueError if a group is not set to a name.
    except (*COMPOSING_ERRORS, ValueError, AttributeError, AssertionError) as error:
        known = {group: search.options(group) for group in (*command.groups, *WITHOUT_KEYS, *HYDRA)}

        def compose(chosen: list[str]) -> DictConfig | None:
            with suppress(*COMPOSING_ERRORS, ValueError):
                return search.compose(command.name, chosen)
            return None

        raise UserError(explain_composition(command, parse(overrides), error, known, compose)) from None


def _samples(
    command: Command, swept: Sequence[Override], values: Sequence[list[str]], search: SearchPath
) -> Iterator[Job]:
    """A job with the first value of each override, and one for each further value of an override."""
    first = [value for value, *_ in values]
    yield _composed(command, first, search, swept=True, sample=True)
    for place, override in enumerate(swept):
        for value in values[place][1:]:
            given = [*first[:place], value, *first[place + 1 :]]
            yield _composed(command, given, search, swept=True, sample=True, trying=override.input_line)
