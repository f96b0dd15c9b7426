"""Asks Hydra for the options of configuration groups in our `conf/`, in `--config-dir` and in `hydra.searchpath`."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hydra import compose
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathElement
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distdiff.errors import UserError, first_line
from distdiff.keys import TARGET

CONFIG_DIR = Path(__file__).resolve().parents[2] / "conf"
SEARCHPATH = "hydra.searchpath"
COMPOSING_ERRORS = (HydraException, OmegaConfBaseException, YAMLError)


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
        for override in OverridesParser.create().parse_overrides(list(overrides)):
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

    @contextmanager
    def open(self) -> Iterator[Hydra]:
        """Yields Hydra with this search path, which `compose` then uses.

        Afterwards, the Hydra that was active before, if any, is restored.
        """
        around = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        try:
            path = create_config_search_path(str(CONFIG_DIR))
            for place in self.places:  # the place of Hydra's own schemas stays last
                path.get_path().insert(-1, SearchPathElement("command-line", place))
            yield Hydra.create_main_hydra2("distdiff", path)
        finally:
            GlobalHydra.instance().clear()
            if around is not None:
                GlobalHydra.instance().initialize(around)


OURS = SearchPath()


def options(group: str, search: SearchPath = OURS) -> list[str]:
    """The names of a group's options, as `group=option` accepts them."""
    with search.open() as hydra:
        return _options(hydra, group)


def load_options(wanted: Mapping[tuple[str, str], str], search: SearchPath = OURS) -> DictConfig:
    """`{group: {option: keys}}` for each (group, option) in `wanted`, with the keys that the option sets.

    Interpolations in the values of these keys are not resolved. `wanted` maps (group, option) to the configuration key
    that names the option, for error messages. Raises `UserError` for an option that does not exist or whose YAML file
    cannot be read.
    """
    with search.open() as hydra:
        for (group, option), key in wanted.items():
            if not hydra.config_loader.repository.config_exists(f"{group}/{option}"):
                raise UserError(f"{key}={option} is not allowed: {one_of(option, _options(hydra, group))}")
        additions = [f"+{group}@{group}.{option}={option}" for group, option in wanted]
        try:
            found = compose(None, overrides=additions)
        except COMPOSING_ERRORS as error:
            raise UserError(first_line(error)) from None
    OmegaConf.set_struct(found, False)
    return found


def targets_of(group: str, search: SearchPath = OURS) -> Mapping[str, str]:
    """The `_target_` of each option of a group; options without a `_target_` are left out."""
    targets = {}
    for name in options(group, search):
        with suppress(UserError):  # a file that cannot be read must not hide the other options
            if target := load_options({(group, name): group}, search)[group][name].get(TARGET):
                targets[name] = target
    return targets


def one_of(value: str, names: list[str]) -> str:
    """Says what is allowed instead of `value`: all of `names`, and the name that was probably meant."""
    close = difflib.get_close_matches(value, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"one of {', '.join(names)}{hint}"


def _options(hydra: Hydra, group: str) -> list[str]:
    names = hydra.config_loader.get_group_options(group, ObjectType.CONFIG)
    return [name for name in names if not name.startswith("_")]
