"""The configuration of a command: its own keys, and its groups."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from functools import cached_property
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from distdiff.config.options import CONFIG_DIR
from distdiff.keys import Group, key

OPTIONS = "options"  # the key that holds the options to which the configuration refers by name
ROWS = "rows"  # the key below `options` that holds further configurations of the job
NOT_COMMANDS = ("settings",)


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
        listed = OmegaConf.load(CONFIG_DIR / f"{self.name}.yaml").defaults
        names = [name for entry in listed if not isinstance(entry, str) for name in entry]
        return {name: known[name] for name in names}

    @cached_property
    def schema(self) -> type:
        """The command's keys and groups as a dataclass."""
        own = [
            ("command", str, key()),
            ("seed", int, key(0, at_least=0, at_most=2**32 - 1)),  # numpy takes no larger seed
            (
                "fetch_only",
                bool,
                key(False),
            ),  # true: only download what the command will need on a node without a network
        ]
        groups = [(name, group.keys, field(default_factory=group.keys)) for name, group in self.groups.items()]
        return make_dataclass("CommandKeys", [*own, *groups, (OPTIONS, dict, key({}))])

    def register(self) -> None:
        """Registers the schema with Hydra.

        A group whose options have keys of their own accepts any key here. `config/checking.py` checks these keys later.
        """
        store, name = ConfigStore.instance(), f"{self.name}_schema"
        store.store(name, self.schema)
        node = store.repo[f"{name}.yaml"].node
        for opened in (OPTIONS, *(name for name, group in self.groups.items() if group.options_have_keys)):
            OmegaConf.set_struct(node[opened], False)

    def others(self) -> list["Command"]:
        """All other commands."""
        names = sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))
        return [Command(name, self.known_groups) for name in names if name not in (self.name, *NOT_COMMANDS)]


def schema_keys(schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, dataclass field) for every key of a schema, including nested keys."""
    for item in fields(schema):
        yield f"{prefix}{item.name}", item
        if is_dataclass(item.type):
            yield from schema_keys(item.type, f"{prefix}{item.name}.")
