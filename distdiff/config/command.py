"""The configuration of a command: its own keys, and its groups."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, make_dataclass
from functools import cache, cached_property
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.keys import Group, key
from distdiff.option_files.search_path import CONFIG_DIR, register

OPTIONS = "options"  # the key that holds the options to which the configuration refers by name
ROWS = "rows"  # the key below `options` that holds further configurations of the job
NOT_COMMANDS = ("settings",)
WITHOUT_KEYS = ("experiment", "hparams_search")  # groups whose options only set keys of other groups


@dataclass(frozen=True)
class Command:
    """A command: its own keys and its groups. `conf/<name>.yaml` says which of `known_groups` it has."""

    name: str
    known_groups: tuple[Group, ...]

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """Lets launchers pickle a command. The schema is left out: a dataclass made at run time cannot be pickled."""
        return Command, (self.name, self.known_groups)

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The command's groups by name, in the order of its YAML file."""
        known = {group.name: group for group in self.known_groups}
        return {name: known[name] for name in _listed_groups(self.name) if name not in WITHOUT_KEYS}

    @cached_property
    def schema(self) -> type:
        """The command's keys and groups as a dataclass, in which a group has the keys that all its options have."""
        return self.schema_with({})

    def schema_with(self, chosen: Mapping[str, type]) -> type:
        """The command's schema, in which each group in `chosen` has the dataclass that `chosen` gives for it."""
        return _schema(self, tuple(chosen.items()))

    def register(self, takes_more: bool = False) -> None:
        """Registers the schema with Hydra. If `takes_more` is set, further keys may stand beside those of the command.

        A group whose options have keys of their own accepts any key here. `config/checking.py` checks these keys later.
        """
        register(self.name, _schema_for_hydra(self, takes_more))

    def warnings(self, config: DictConfig) -> Iterator[str]:
        """Yields a sentence for each setting that is allowed but that the user may not have meant."""
        for group in self.groups.values():
            if group.warn is not None:
                yield from group.warn(config)

    def others(self) -> list["Command"]:
        """All other commands."""
        return [Command(name, self.known_groups) for name in command_names() if name != self.name]


@cache
def _listed_groups(command: str) -> list[str]:
    listed = OmegaConf.load(CONFIG_DIR / f"{command}.yaml").defaults
    return [name for entry in listed if not isinstance(entry, str) for name in entry]


@cache  # the same class each time, so that `structured` in keys/schema.py knows it
def _schema(command: Command, chosen: tuple[tuple[str, type], ...]) -> type:
    own = [
        ("command", str, key()),
        ("seed", int, key(0, at_least=0, at_most=2**32 - 1)),  # numpy takes no larger seed
        ("fetch_only", bool, key(False)),  # true: only download what the command needs on a node without a network
    ]
    kinds = {name: group.keys for name, group in command.groups.items()} | dict(chosen)
    groups = [(name, kind, field(default_factory=kind)) for name, kind in kinds.items()]
    return make_dataclass("CommandKeys", [*own, *groups, (OPTIONS, dict, key({}))])


@cache
def _schema_for_hydra(command: Command, takes_more: bool) -> DictConfig:
    node = OmegaConf.structured(command.schema)
    for opened in (OPTIONS, *(name for name, group in command.groups.items() if group.options_have_keys)):
        OmegaConf.set_struct(node[opened], False)
    if takes_more:
        OmegaConf.set_struct(node, False)
    return node


def command_names() -> list[str]:
    """The names of all commands: each has a file `conf/<name>.yaml`."""
    return sorted(path.stem for path in CONFIG_DIR.glob("*.yaml") if path.stem not in NOT_COMMANDS)
