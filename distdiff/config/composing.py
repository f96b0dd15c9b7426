"""Composes a command's jobs with Hydra's own loader and grammar, before Hydra runs them.

A Hydra that is already active in this process, such as a notebook's, is neither used nor changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathElement
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distdiff.config.arguments import parse, readable
from distdiff.config.command import CONFIG_DIR, WITHOUT_KEYS, Command
from distdiff.config.explanations import explain_composition
from distdiff.errors import UserError, first_line
from distdiff.keys import TARGET
from distdiff.keys.suggesting import one_of
from distdiff.keys.unmeant import refuse_unmeant
from distdiff.own_options import refuse_broken

SEARCHPATH = "hydra.searchpath"
COMPOSING_ERRORS = (HydraException, OmegaConfBaseException, YAMLError)
JOB_NAME = "hydra.job.name=distdiff"  # Hydra would ask the application that is active in this process for its name
HYDRA = ("hydra/launcher", "hydra/sweeper")
BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"


class _Repository(ConfigRepository):
    """Hydra's repository, which Hydra copies for each composition so that the copy may have other sources.

    The sources themselves are the same in each copy: a deep copy of all registered schemas takes longer than composing.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Repository":
        return copy(self)  # `initialize_sources` gives the copy a list of its own


@dataclass(frozen=True)
class SearchPath:
    """The places, each `file://…` or `pkg://…`, in which Hydra looks for YAML files after our `conf/`."""

    places: tuple[str, ...] = ()

    @classmethod
    def of(cls, config_dir: str | None, overrides: Iterable[str]) -> "SearchPath":
        """The search path of a command line: `config_dir` (`--config-dir`) and the places in `hydra.searchpath`.

        Raises `UserError` for a folder that does not exist.
        """
        places = [] if config_dir is None else [f"file://{Path(config_dir).absolute()}"]
        for override in parse(overrides):
            if override.get_key_element().lstrip("+") == SEARCHPATH and isinstance(added := override.value(), list):
                places += map(str, added)
        found = cls(tuple(places))
        for folder in found.folders:
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder of configurations (--config-dir, {SEARCHPATH})")
        return found

    @property
    def folders(self) -> list[Path]:
        """The places that are folders."""
        return [Path(place.removeprefix("file://")) for place in self.places if not place.startswith("pkg://")]

    @cache  # noqa: B019 (a process has few search paths)
    def loader(self) -> ConfigLoaderImpl:
        """Hydra's loader with this search path."""
        setup_globals()
        path = create_config_search_path(str(CONFIG_DIR))
        for place in self.places:  # the place of Hydra's own schemas stays last
            path.get_path().insert(-1, SearchPathElement("command-line", place))
        loader = ConfigLoaderImpl(path)
        loader.repository = _Repository(path)
        return loader

    def compose(self, name: str | None, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        """The composed configuration, including Hydra's own part."""
        refuse_broken(self.folders, CONFIG_DIR, overrides)
        return self.loader().load_configuration(name, [*overrides, JOB_NAME], mode, from_shell=False)

    def compose_options(self, wanted: Iterable[tuple[str, str]]) -> DictConfig:
        """`{group: {option: keys}}` for each (group, option) in `wanted`."""
        overrides = [f"+{group}@{group}.{option}={option}" for group, option in wanted]
        loader = self.loader()
        try:  # without Hydra's own part, which takes ten times as long to compose as the options
            parsed, repository = loader._parse_overrides_and_create_caching_repo(None, overrides)
            defaults = create_defaults_list(repository, None, parsed, prepend_hydra=False, skip_missing=False).defaults
            return loader._compose_config_from_defaults_list(defaults, repository)
        except COMPOSING_ERRORS:  # an option may choose among Hydra's own groups
            found = self.compose(None, overrides)
            OmegaConf.set_struct(found, False)
            del found["hydra"]
            return found

    def options(self, group: str) -> list[str]:
        """The names of a group's options, as `group=option` accepts them."""
        names = self.loader().repository.get_group_options(group, ObjectType.CONFIG)
        return [name for name in names if not name.startswith("_")]


OURS = SearchPath()


@dataclass(frozen=True)
class Job:
    """One composed job, not checked yet.

    `choices` maps each group to its chosen option. `typed` holds the job's overrides, except overrides of Hydra's own
    keys. `swept` is True for a job of a multirun. `sample` is True if the job stands for the jobs that a sweeper will
    choose as it goes, with some value for each swept key. `chdir` is True if Hydra runs the job in its run directory.
    """

    command: Command
    config: DictConfig
    choices: Mapping[str, str]
    typed: tuple[str, ...] = ()
    search: SearchPath = OURS
    swept: bool = False
    sample: bool = False
    chdir: bool = False

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


def compose_jobs(
    command: Command, overrides: Sequence[str], multirun: bool, search: SearchPath | None = None
) -> list[Job]:
    """All jobs that `overrides` ask for; there is only one unless `multirun` is set.

    The jobs of a multirun are those that Hydra's basic sweeper makes. Another sweeper chooses its jobs as it goes; one
    job then stands for all. Raises `UserError` if a job cannot be composed.
    """
    overrides = readable(overrides)
    search = SearchPath.of(None, overrides) if search is None else search
    refuse_unmeant(command.groups, parse(overrides), multirun)
    command.register()
    if not multirun:
        return [_composed(command, overrides, search)]
    sweeper = _compose(command, overrides, search, RunMode.MULTIRUN).hydra.sweeper
    params = [f"{name}={value}" for name, value in (sweeper.get("params") or {}).items()]
    swept = OverridesParser.create(config_loader=search.loader()).parse_overrides([*params, *overrides])
    samples = [_sample(override) for override in swept]
    if sweeper[TARGET] != BASIC_SWEEPER:
        return [_composed(command, samples, search, swept=True, sample=True)]
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


def _sample(override: Override) -> str:
    """The override with one of its values. Raises `UserError` if it has none."""
    if not override.is_sweep_override():
        return override.input_line
    value = override.value()
    try:
        first = value.start if isinstance(value, IntervalSweep) else next(iter(override.sweep_string_iterator()))
    except (StopIteration, TypeError, ValueError, HydraException) as error:
        reason = "" if isinstance(error, StopIteration) else f" ({first_line(error)})"
        raise UserError(f"{override.input_line} gives no value{reason}") from None
    return f"{override.get_key_element()}={first}"
