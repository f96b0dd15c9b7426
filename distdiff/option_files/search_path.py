"""Where Hydra finds the YAML files of options, and the configurations that it composes of them.

A Hydra that is already active in this process, such as a notebook's, is neither used nor changed.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathElement
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distdiff.option_files.broken import refuse_broken
from distdiff.option_files.overrides import parse

PACKAGE = Path(__file__).resolve().parents[1]
# An installed package holds `conf/`; in a checkout it lies beside the package.
CONFIG_DIR = next(place / "conf" for place in (PACKAGE, PACKAGE.parent) if (place / "conf/settings.yaml").is_file())
COMPOSING_ERRORS = (HydraException, OmegaConfBaseException, YAMLError)
SEARCHPATH = "hydra.searchpath"
HYDRAS_LAST = ("hydra.runtime", "hydra.overrides", "hydra.job.config_name", "hydra.job.override_dirname")
"""Keys that Hydra sets itself after the overrides."""


class _Repository(ConfigRepository):
    """Hydra's repository, which Hydra copies for each composition so that the copy may have other sources.

    The sources themselves are the same in each copy: a deep copy of all registered schemas takes longer than composing.
    With `keeps_files`, each YAML file is read once, for all copies; it is for files that no process changes.
    """

    _kept: dict[str, ConfigResult] | None

    def __init__(self, path: ConfigSearchPath, keeps_files: bool) -> None:
        super().__init__(path)
        if keeps_files:
            self._kept = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Repository":
        return copy(self)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)  # a list of its own for the copy
        self._kept = None

    def load_config(self, config_path: str) -> ConfigResult | None:
        if self._kept is None:
            return super().load_config(config_path)
        if config_path not in self._kept:
            found = super().load_config(config_path)
            if found is None or not found.path.startswith(("file://", "pkg://")):  # schemas are registered anew
                return found
            self._kept[config_path] = found
        return deepcopy(self._kept[config_path])  # Hydra merges the schema into it


@dataclass(frozen=True)
class SearchPath:
    """The places, each `file://…` or `pkg://…`, in which Hydra looks for YAML files after our `conf/`."""

    places: tuple[str, ...] = ()

    @property
    def folders(self) -> list[Path]:
        """The places that are folders."""
        return [Path(place.removeprefix("file://")) for place in self.places if not place.startswith("pkg://")]

    @cache  # noqa: B019 (a process has few search paths)
    def loader(self) -> ConfigLoaderImpl:
        """Hydra's loader with this search path."""
        setup_globals()
        path = _path_with(self.places)
        loader = ConfigLoaderImpl(path)
        loader.repository = _Repository(path, keeps_files=not self.places)
        return loader

    def compose(self, name: str | None, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        """The composed configuration, including Hydra's own part."""
        refuse_broken(self.folders, CONFIG_DIR, overrides)
        if not self.places and (config := composed_from_choices(name, overrides, mode)) is not None:
            return config
        return self.loader().load_configuration(name, overrides, mode, from_shell=False)

    def compose_options(self, wanted: Iterable[tuple[str, str]]) -> DictConfig:
        """`{group: {option: keys}}` for each (group, option) in `wanted`.

        The options of our `conf/` alone, which no process changes, are composed once and copied.
        """
        return self._composed_options(tuple(wanted)) if self.places else deepcopy(_our_options(tuple(wanted)))

    def _composed_options(self, wanted: Sequence[tuple[str, str]]) -> DictConfig:
        overrides = [f"+{group}@{group}.{option}={option}" for group, option in wanted]
        refuse_broken(self.folders, CONFIG_DIR, overrides)
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
        return self._options(group) if self.places else list(_our_names(group))

    def _options(self, group: str) -> list[str]:
        names = self.loader().repository.get_group_options(group, ObjectType.CONFIG)
        return [name for name in names if not name.startswith("_")]


OURS = SearchPath()


def _path_with(places: Iterable[str]) -> ConfigSearchPath:
    """Hydra's search path of our `conf/` and then of `places`."""
    path = create_config_search_path(str(CONFIG_DIR))
    for place in places:  # the place of Hydra's own schemas stays last
        path.get_path().insert(-1, SearchPathElement("command-line", place))
    return path


def composed_from_choices(name: str | None, overrides: Sequence[str], mode: RunMode) -> DictConfig | None:
    """What Hydra composes of our `conf/` alone, made from a copy of what it composed of the same options before.

    Hydra sets the values of keys last. The jobs of a sweep and the rows of a study mostly differ in these alone.
    Returns None where only Hydra itself can compose: other folders, no command, a key that Hydra sets itself, or a
    mistake, of which Hydra tells.
    """
    if name is None or any(SEARCHPATH in item or item.lstrip("+~").startswith(HYDRAS_LAST) for item in overrides):
        return None
    with suppress(*COMPOSING_ERRORS):
        parsed = parse(overrides)
        swept = [item for item in parsed if item.is_sweep_override()]
        if swept and (mode == RunMode.RUN or any(item.is_hydra_override() for item in swept)):
            return None
        values = [item for item in parsed if item not in swept and _sets_value(item)]
        choices = tuple(item.input_line for item in parsed if item not in swept and item not in values)
        config = deepcopy(_our_choices(name, choices, mode, _registered(name)))
        OmegaConf.clear_cache(config)  # ${now:...} is the time of this configuration, not of the one that was kept
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        _tell_hydra(config.hydra, parsed)
        return config
    return None


def _sets_value(override: Override) -> bool:
    """Whether the override sets a key instead of choosing an option."""
    return isinstance(override.value(), dict) or not OURS.loader().repository.group_exists(override.key_or_group)


def _tell_hydra(hydra: DictConfig, overrides: Sequence[Override]) -> None:
    """Sets what Hydra notes in its own part of a configuration, of the overrides and of the process."""
    own = [item for item in overrides if not item.is_hydra_override()]
    hydra.overrides.hydra = [item.input_line for item in overrides if item.is_hydra_override()]
    hydra.overrides.task = [item.input_line for item in own]
    hydra.job.override_dirname = get_overrides_dirname(own, **hydra.job.config.override_dirname)
    with open_dict(hydra):
        for variable in hydra.job.env_copy:
            hydra.job.env_set[variable] = os.environ[variable]
    hydra.runtime.cwd = str(Path.cwd())
    hydra.runtime.version_base = version.getbase()  # it is the process's, and an application may set it


def place_of(folder: str) -> str:
    """A folder of YAML files as a place in a search path."""
    return f"file://{os.path.abspath(folder)}"


class HydraLoader(ConfigLoaderImpl):
    """The loader with which Hydra runs a command: it composes the same, without composing anything twice.

    For a multirun of n jobs, Hydra composes 2 n + 1 configurations before and between the jobs.
    """

    def __init__(self, config_dir: str | None) -> None:
        super().__init__(_path_with([] if config_dir is None else [place_of(config_dir)]))
        self.only_ours = config_dir is None

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """As Hydra's own loader."""
        if self.only_ours and (config := composed_from_choices(config_name, overrides, run_mode)) is not None:
            return config
        return super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)


def register(command: str, schema: DictConfig) -> None:
    """Registers the schema of a command's configuration with Hydra."""
    if _registered(command) != _kind(schema):
        ConfigStore.instance().store(f"{command}_schema", schema)


def _registered(command: str | None) -> tuple[Any, ...]:
    """Which schema is registered for a command; empty if there is none."""
    stored = ConfigStore.instance().repo.get(f"{command}_schema.yaml")
    return () if stored is None else _kind(stored.node)


def _kind(schema: DictConfig) -> tuple[Any, ...]:
    """What tells a schema from others: its type, and whether it takes further keys."""
    return OmegaConf.get_type(schema), schema._get_flag("struct")


@lru_cache(maxsize=64)
def _our_choices(name: str, choices: tuple[str, ...], mode: RunMode, registered: tuple[Any, ...]) -> DictConfig:
    return OURS.loader().load_configuration(name, list(choices), mode, from_shell=False)


@cache
def _our_names(group: str) -> tuple[str, ...]:
    return tuple(OURS._options(group))


@lru_cache(maxsize=256)
def _our_options(wanted: tuple[tuple[str, str], ...]) -> DictConfig:
    return OURS._composed_options(wanted)
