"""The keys of an option, or of a whole command, as a dataclass that OmegaConf merges values into."""

from collections.abc import Iterable, Iterator
from dataclasses import field, fields, is_dataclass, make_dataclass
from functools import cache, lru_cache
from typing import Any, get_args

from omegaconf import MISSING, DictConfig, OmegaConf

from distdiff.errors import UserError
from distdiff.keys import TARGET, Group, key
from distdiff.keys.signatures import COMPUTED, Parameter, Signature, signature_of
from distdiff.keys.suggesting import no_such_key


def schema_of(group: Group, node: DictConfig) -> type:
    """The schema of the option that `node` configures.

    A key whose default only Python can evaluate is included only if `node` sets the key.
    """
    target = node.get(TARGET) if group.options_have_keys else None
    return option_schema(group, target, tuple(map(str, node)) if target else ())


@cache
def option_schema(group: Group, target: str | None, given: tuple[str, ...] = ()) -> type:
    """A dataclass of the keys that all options of a group have and of the keys in the signature of `target`.

    A key in `given` that the signature lacks may hold any value. A key whose default only Python can evaluate is
    included only if the key is in `given`.
    """
    own = signature_of(target).keys if target else {}
    own = {name: Parameter() for name in given} | own
    common = {item.name for item in fields(group.keys)}
    added = [
        (name, item.type, key(MISSING if item.default == COMPUTED else item.default, **vars(item.limits)))
        for name, item in own.items()
        if name not in common and (item.default != COMPUTED or name in given)
    ]
    return make_dataclass(f"{group.name.title()}Keys", added, bases=(group.keys,))


@lru_cache(1000)  # far more than one job has
def structured(schema: type) -> DictConfig:
    """The keys of a schema with their defaults, for `OmegaConf.merge`, which copies them: they must not be changed."""
    return OmegaConf.structured(schema)


@lru_cache(1000)
def options_schema(wanted: tuple[tuple[str, str], ...]) -> type:
    """A dataclass in which each (group, option) of `wanted` may hold keys, which are not checked."""
    groups: dict[str, list[str]] = {}
    for group, option in wanted:
        groups.setdefault(group, []).append(option)
    kinds = {name: make_dataclass(name, [(option, dict, None) for option in own]) for name, own in groups.items()}
    return make_dataclass("Options", [(name, kind, field(default_factory=kind)) for name, kind in kinds.items()])


def signature_of_option(node: DictConfig) -> Signature:
    """The signature of the option that `node` configures; the signature is empty if the option has no `_target_`."""
    target = node.get(TARGET)
    return signature_of(target) if target and isinstance(target, str) else Signature()


def schema_keys(schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, dataclass field) for every key of a schema, including nested keys."""
    for item in fields(schema):
        yield f"{prefix}{item.name}", item
        if is_dataclass(item.type):
            yield from schema_keys(item.type, f"{prefix}{item.name}.")


def references_in(schema: type, config: DictConfig, prefix: str = "") -> Iterator[tuple[tuple[str, str], str]]:
    """Yields ((group, option), key) for each key whose value, according to `schema`, names an option of a group."""
    for item in fields(schema):
        if OmegaConf.is_missing(config, item.name):
            continue
        value = config[item.name]
        if is_dataclass(item.type) and value is not None:
            yield from references_in(item.type, value, f"{prefix}{item.name}.")
        elif (group := item.metadata.get("option_of")) and value is not None:
            for name in value if OmegaConf.is_list(value) else [value]:
                yield (group, str(name)), f"{prefix}{item.name}"


def refuse_strangers(schema: type, config: DictConfig, prefix: str = "", groups: Iterable[Group] = ()) -> None:
    """Raises `UserError` for a key not in `schema`: Hydra lets `+key=value` add it, but nothing would read it.

    `groups` may know the key's name from a library (see `no_such_key`).
    """
    known = {item.name: item.type for item in fields(schema)}
    for name in config:
        if type(None) in get_args(known.get(name)):  # keys that are there only if something is chosen
            node = config._get_node(name)
            known[name] = get_args(known[name])[0] if OmegaConf.is_dict(node) and not node._is_none() else None
        if name not in known:
            given = config._get_node(name)
            raise UserError(no_such_key(f"{prefix}{name}", given, [f"{prefix}{each}" for each in known], groups))
        if is_dataclass(known[name]):
            if not OmegaConf.is_dict(config[name]):
                raise UserError(f"{prefix}{name}={config[name]} is not allowed: give keys, {prefix}{name}.<key>=...")
            refuse_strangers(known[name], config[name], f"{prefix}{name}.", groups)
