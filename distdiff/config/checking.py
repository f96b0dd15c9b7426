"""Completes and checks a composed job before anything loads: a mistake is one line with key, value and what is allowed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distdiff.config.command import OPTIONS
from distdiff.config.composition import Job, parse
from distdiff.config.explanations import aliases, all_keys, explain_type, suggest
from distdiff.config.limits import check_values
from distdiff.config.options import load_options, options, targets_of
from distdiff.config.signatures import COMPUTED, Parameter, Signature, signature_of
from distdiff.errors import UserError
from distdiff.keys import NAME, TARGET, Group, Limits


@dataclass(frozen=True)
class Unread:
    """A key that was given to a group whose chosen option does not read it."""

    group: Group
    name: str
    value: Any

    @property
    def full_name(self) -> str:
        return f"{self.group.name}.{self.name}"


def validate(job: Job) -> DictConfig:
    """The job's configuration: complete, typed, resolved, with `options` that it refers to, and without Hydra's own part.

    Raises `UserError` naming key, value and what is allowed.
    """
    given = OmegaConf.create({name: job.config._get_node(name) for name in job.config if name != "hydra"})
    OmegaConf.set_struct(given, False)
    unread: list[Unread] = []
    schemas: dict[str, type] = {}
    for name, group in job.command.groups.items():
        if group.options_have_keys:
            node = given[name]
            OmegaConf.set_struct(node, False)
            _name(node, group, job.choices.get(name))
            unread += _take_out_unread(node, group, job.also_read.get(name, frozenset()))
            _refuse_lists(node, group, job)
            schemas[name] = _schema_of(group, node)
        else:
            schemas[name] = group.keys
    schema = _with_groups(job.command.schema, schemas)
    _check_strangers(schema, given)
    config = _resolved(_typed(schema, given, job))
    _bring_options(config, schema, unread, job)
    check_values(schema, config)
    for group in job.command.groups.values():
        if group.check is not None:
            group.check(config)
    OmegaConf.set_struct(config, True)
    return config


def complete_option(group: Group, option: str, node: DictConfig) -> DictConfig:
    """An option of a group by its name, with its types, and defaults of keys that its YAML file leaves out; checked.

    Raises `UserError`.
    """
    _name(node, group, option)
    _refuse_strangers(group, node)
    schema = _schema_of(group, node) if group.options_have_keys else group.keys
    try:
        typed = OmegaConf.merge(OmegaConf.structured(schema), node)
    except OmegaConfBaseException as error:
        raise UserError(f"{group.name}.{explain_type(error)}") from None
    check_values(schema, typed, f"{group.name}.")
    return typed


def _schema_of(group: Group, node: DictConfig) -> type:
    """The keys of the option with this node; where its target takes any, those that it was given."""
    target = node.get(TARGET)
    return option_schema(group, target, tuple(node) if target and signature_of(target).takes_any else ())


@cache
def option_schema(group: Group, target: str | None, given: tuple[str, ...] = ()) -> type:
    """A dataclass of the keys that all options of a group have and, by its signature, those of the one with this target.

    Keys of `given` that are neither may hold anything.
    """
    own = signature_of(target).keys if target else {}
    own = {name: Parameter() for name in given} | own
    common = {item.name for item in fields(group.keys)}
    added = [
        (name, item.type, _field(item.default, item.limits))
        for name, item in own.items()
        if name not in common and item.default != COMPUTED
    ]
    return make_dataclass(f"{group.name.title()}Keys", added, bases=(group.keys,))


def _field(default: Any, limits: Limits) -> Any:
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default, metadata=limits.as_metadata())
    return field(default=default, metadata=limits.as_metadata())


def _with_groups(schema: type, groups: Mapping[str, type]) -> type:
    """A command's schema with other dataclasses for its groups: those of the options that were chosen."""
    own = [
        (
            item.name,
            groups.get(item.name, item.type),
            field(default_factory=groups[item.name])
            if item.name in groups
            else field(default=item.default, default_factory=item.default_factory, metadata=item.metadata),
        )
        for item in fields(schema)
    ]
    return make_dataclass(schema.__name__, own)


def _name(node: DictConfig, group: Group, choice: str | None) -> None:
    """An option is called as its file is; only where the group's keys leave the name open may it be another or none."""
    kinds = [item.type for item in fields(group.keys) if item.name == NAME]
    if kinds == [str] and choice is not None:
        node[NAME] = choice


def _take_out_unread(node: DictConfig, group: Group, also_read: frozenset[str]) -> list[Unread]:
    """Removes the keys that the option with this node does not read, and returns those that nobody is known to read."""
    if not node.get(TARGET):
        signature = Signature()
    elif (signature := signature_of(node[TARGET])).takes_any:
        return []
    known = {item.name for item in fields(group.keys)} | signature.keys.keys()
    found = []
    for name in [name for name in node if name not in known]:
        if name not in group.taken_everywhere and name not in also_read:
            found.append(Unread(group, str(name), node._get_node(name)))
        del node[name]
    return found


def _refuse_lists(node: DictConfig, group: Group, job: Job) -> None:
    """Raises `UserError` for a list where an option takes one value, with the options that take several."""
    own = signature_of(node[TARGET]).keys if node.get(TARGET) else {}
    for name, parameter in own.items():
        if name in node and OmegaConf.is_list(node._get_node(name)) and not _takes_list(parameter):
            targets = targets_of(group.name, job.search).items()
            takers = [option for option, target in targets if _takes_list(signature_of(target).keys.get(name))]
            wanted = f"a list is for {group.name}={', '.join(takers)}" if takers else "one value, not a list"
            raise UserError(f"{group.name}.{name}={node[name]} is not allowed: {wanted}")


def _takes_list(parameter: Parameter | None) -> bool:
    return parameter is not None and (parameter.type is Any or "list" in str(parameter.type))


def _typed(schema: type, given: DictConfig, job: Job) -> DictConfig:
    try:
        return OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.to_container(given, resolve=False))
    except OmegaConfBaseException as error:
        raise UserError(explain_type(error, parse(job.typed))) from None


def _resolved(config: DictConfig) -> DictConfig:
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise UserError(explain_type(error)) from None
    return config


def _bring_options(config: DictConfig, schema: type, unread: list[Unread], job: Job) -> None:
    """Fills `config.options` with the options that the configuration refers to by name.

    A key that was typed for a group, and that the chosen option does not read, goes to those options of the group that do;
    raises `UserError` where there is none.
    """
    typed, groups = config[OPTIONS], {group.name: group for group in job.command.known_groups}
    wanted = dict.fromkeys(_references(schema, config))
    for group in job.command.groups.values():
        if group.refers_to is not None:
            wanted |= dict.fromkeys(group.refers_to(config, lambda name: options(name, job.search)))
    loaded = load_options(wanted, job.search) if wanted else OmegaConf.create({})
    for item in unread:
        readers = [option for name, option in wanted if name == item.group.name]
        found = loaded.get(item.group.name, {})
        readers = [option for option in readers if item.name in signature_of(found[option][TARGET]).keys]
        if not readers:
            raise UserError(_explain_unread(item, config, job))
        for option in readers:
            found[option][item.name] = item.value
    for name, option in wanted:
        node = loaded[name][option]
        OmegaConf.set_struct(node, False)
        if given := OmegaConf.select(typed, f"{name}.{option}"):
            node = OmegaConf.merge(node, given)
        OmegaConf.update(
            config, f"{OPTIONS}.{name}.{option}", complete_option(groups[name], option, node), force_add=True
        )
    for name in [name for name in config[OPTIONS] if name not in {group for group, _ in wanted}]:
        raise UserError(f"{OPTIONS}.{name} is not allowed: no option of {name} is referred to by name here")
    _resolved(config)
    for name, option in wanted:
        node = config[OPTIONS][name][option]
        check_values(_schema_of(groups[name], node), node, f"{OPTIONS}.{name}.{option}.")


def _references(schema: type, config: DictConfig) -> Iterator[tuple[str, str]]:
    """(group, option) of all keys that name an option of a group, by their schema."""
    for item in fields(schema):
        if OmegaConf.is_missing(config, item.name):
            continue
        value = config[item.name]
        if is_dataclass(item.type) and value is not None:
            yield from _references(item.type, value)
        elif (group := item.metadata.get("option_of")) and value is not None:
            yield from ((group, str(name)) for name in (value if OmegaConf.is_list(value) else [value]))


def _explain_unread(item: Unread, config: DictConfig, job: Job) -> str:
    """Who reads a key that the chosen option does not; or, where nobody does, what it may have been meant for."""
    given = job.typed_value(item.full_name)
    told = item.full_name + (f"={given if given is not None else item.value}")
    option = job.choices.get(item.group.name, config[item.group.name].get(NAME))
    if given is None and job.typed_value(f"+{item.full_name}") is None:
        return f"{item.group.name}={option} has a key {item.name} that its _target_ does not take"
    targets = targets_of(item.group.name, job.search)
    readers = [name for name, target in targets.items() if item.name in signature_of(target).keys]
    if not readers:
        known = list(all_keys(config))
        return f"{told} is not allowed: there is no such key; {suggest(item.full_name, known, aliases(job.command))}"
    hint = f"it is for {item.group.name}={', '.join(readers)}"
    if general := [name for name in item.group.general_options if name in readers]:
        if OmegaConf.is_list(item.value):  # of those that read it, one that takes a list
            general = [name for name in general if _takes_list(signature_of(targets[name]).keys[item.name])] or general
        hint = f"did you mean {item.group.name}={general[0]} {item.full_name}={given}?"
    return f"{told} is not allowed: {item.group.name}={option} does not read {item.full_name}; {hint}"


def _check_strangers(schema: type, config: DictConfig, prefix: str = "") -> None:
    """`+key=value` can add what no schema knows; Hydra allows it, nothing here would read it."""
    known = {item.name: item.type for item in fields(schema)}
    for name in config:
        if name not in known:
            raise UserError(f"{prefix}{name} is not allowed: there is no such key; its place has {', '.join(known)}")
        if is_dataclass(known[name]) and config._get_node(name) is not None:
            _check_strangers(known[name], config[name], f"{prefix}{name}.")


def _refuse_strangers(group: Group, node: DictConfig) -> None:
    """Raises `UserError` for a key that an option does not take."""
    if not group.options_have_keys or not node.get(TARGET):
        known = {item.name for item in fields(group.keys)}
    elif (signature := signature_of(node[TARGET])).takes_any:
        return
    else:
        known = {item.name for item in fields(group.keys)} | signature.keys.keys()
    for name in node:
        if name in known:
            continue
        if name not in group.taken_everywhere:
            raise UserError(
                f"{group.name}.{name}={node[name]} is not allowed: there is no such key; its keys: "
                f"{', '.join(sorted(known - {TARGET, NAME}))}"
            )
        del node[name]
