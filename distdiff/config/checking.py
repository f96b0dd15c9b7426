"""Completes and checks a job before anything loads.

A mistake is reported in one line with the key, its value and what is allowed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distdiff.config.arguments import readable
from distdiff.config.command import OPTIONS, ROWS
from distdiff.config.composing import Job, load_options, targets_of, vary
from distdiff.errors import UserError
from distdiff.keys import NAME, TARGET, Group, key
from distdiff.keys.limits import check_values, explain_reference, explain_type, refuse_nested
from distdiff.keys.paths import set_places
from distdiff.keys.schema import (
    options_schema,
    references_in,
    refuse_strangers,
    schema_of,
    signature_of_option,
    structured,
)
from distdiff.keys.signatures import signature_of
from distdiff.keys.suggesting import all_keys, for_shell, no_such_key
from distdiff.option_files.overrides import parse
from distdiff.option_files.search_path import OURS, SearchPath


@dataclass(frozen=True)
class Unread:
    """A key that is set although its group's chosen option does not read it; an empty `name` means the group itself."""

    group: Group
    name: str
    value: Any
    reason: str | None = None  # why nothing in this configuration reads the key, whichever option is chosen
    refused: bool = (
        True  # if no job reads it; False for a key of `taken_everywhere` whose group nothing in this job reads
    )

    @property
    def full_name(self) -> str:
        return f"{self.group.name}.{self.name}" if self.name else self.group.name


def validate(job: Job) -> DictConfig:
    """The job's configuration, complete, checked and resolved, without Hydra's own part.

    The key `options` of the configuration holds the options to which other keys refer by name. Raises `UserError` for a
    mistake and for a key that nothing in the job reads. The message names the key, its value and what is allowed.
    """
    return validate_jobs([job])[0]


def validate_jobs(jobs: Sequence[Job]) -> list[DictConfig]:
    """The configurations of a multirun's jobs, as `validate` gives them. A job may set a key that only others read.

    Raises `UserError` for a mistake in any job, and for a key that no job reads.
    """
    completed = [_complete(job) for job in jobs]
    by_nobody = set.intersection(*({item.full_name for item in unread} for _, unread in completed))
    for job, (config, unread) in zip(jobs, completed, strict=True):
        for item in unread:
            if item.refused and item.full_name in by_nobody and not (job.sample and _readers(item, job.search)):
                raise UserError(_explain_unread(item, config, job))
    return [config for config, _ in completed]


def _complete(job: Job) -> tuple[DictConfig, list[Unread]]:
    try:
        return complete(job)
    except UserError as error:
        if job.trying is None:
            raise
        raise UserError(f"{error}; the sweep may choose this ({job.trying}): type other values") from None


def complete(job: Job) -> tuple[DictConfig, list[Unread]]:
    """The configuration as `validate` returns it, and the overridden keys that no option in this job reads."""
    given = OmegaConf.create({name: job.config._get_node(name) for name in job.config if name != "hydra"})
    OmegaConf.set_struct(given, False)
    unread: list[Unread] = []
    schemas: dict[str, type] = {}
    for name, group in job.command.groups.items():
        if group.options_have_keys:
            node = given[name]
            OmegaConf.set_struct(node, False)
            if typed := job.typed_for(f"{name}.{NAME}"):
                _refuse_other_name(typed, node, group, job.choices.get(name))
            _name(node, group, job.choices.get(name))
            _refuse_no_target(node, group, job.choices.get(name))
            _check_ignored(node, group, job)
            unread += _take_out_unread(node, group, _ignored_by(group, job))
            _refuse_lists(node, group, job)
            schemas[name] = schema_of(group, node)
    schema = job.command.schema_with(schemas)
    refuse_strangers(schema, given, groups=job.command.known_groups)
    config = _resolved(_typed(schema, given, job))
    refuse_nested(schema, config)
    for name, group in job.command.groups.items():
        set_places(group, config[name], Path.cwd() if job.chdir else None)
        for own, (alone, swept) in group.defaults.items():
            if config[name][own] is None:
                config[name][own] = swept if job.swept else alone
    unread = _bring_options(config, schema, unread, job)
    for item in unread:
        if job.typed_for(item.full_name) is None:
            raise UserError(_explain_unread(item, config, job))
    check_values(schema, config)
    for group in job.command.groups.values():
        if group.check is not None:
            group.check(config)
    unread = _with_reasons(unread, config, job)
    for group in job.command.groups.values():
        if group.variants is not None and (found := group.variants(config, job)):
            config[OPTIONS][ROWS] = {name: _variant(job, group, name, overrides) for name, overrides in found.items()}
    OmegaConf.set_struct(config, True)
    return config, unread


def _with_reasons(unread: list[Unread], config: DictConfig, job: Job) -> list[Unread]:
    """Adds the overridden keys that nothing in this configuration reads, whichever options are chosen, in front of `unread`.

    Of a group that nothing reads, keys in `taken_everywhere` are not refused.
    """
    found: list[Unread] = []
    groups, reasons = job.command.groups, {}
    for group in groups.values():
        if group.unread is not None:
            reasons |= group.unread(config)
    for place, reason in reasons.items():
        for typed in job.typed:
            name, _, value = typed.lstrip("+").partition("=")
            group, _, key = name.partition(".")
            if (name == place or name.startswith(f"{place}.")) and key not in groups[group].taken_everywhere:
                found.append(Unread(groups[group], key, value, reason))
    return [
        *found,
        *(
            replace(item, refused=item.group.name not in reasons or item.name not in item.group.taken_everywhere)
            for item in unread
        ),
    ]


def _variant(job: Job, group: Group, name: str, overrides: list[str]) -> DictConfig:
    """The job's configuration with `overrides` (of `<group>.rows.<name>`) added, but without the keys of `group`."""
    try:
        varied = replace(vary(job, overrides, group.name), inherited=_options_in(job.typed) - _options_in(overrides))
        own = {item.lstrip("+") for item in readable(overrides)}
        config, unread = complete(varied)
        for item in unread:
            if item.refused and varied.typed_for(item.full_name) in own:
                raise UserError(_explain_unread(item, config, varied))
    except UserError as error:
        has_rows = OmegaConf.is_dict(job.config[group.name].get(ROWS))
        raise UserError(f"{group.name}{f'.{ROWS}.' if has_rows else ': '}{name}: {error}") from None
    OmegaConf.set_struct(config, False)
    del config[group.name]
    return config


def _options_in(overrides: Sequence[str]) -> frozenset[tuple[str, str]]:
    """The (group, option) of which `overrides` set keys below `options`."""
    places = [item.key_or_group.split(".") for item in parse(readable(overrides))]
    return frozenset((place[1], place[2]) for place in places if place[0] == OPTIONS and len(place) > 2)


def complete_option(group: Group, option: str, node: DictConfig, place: str | None = None) -> DictConfig:
    """A group's `option` with its keys (`node`) checked, and with defaults for the keys that its YAML file leaves out.

    Raises `UserError`, which names a key as `<place>.<key>`. If `place` is None, the group's name is used instead.
    """
    place = group.name if place is None else place
    _name(node, group, option)
    _refuse_no_target(node, group)
    unread = _take_out_unread(node, group, ())
    schema = schema_of(group, node)
    for item in unread:
        if place == group.name and (readers := _readers(item, OURS)):
            raise UserError(_not_read(f"{item.full_name}={item.value}", item, option, _only_for(item, readers)))
        known = [f"{place}.{each.name}" for each in fields(schema) if each.name not in (TARGET, NAME)]
        message = no_such_key(f"{place}.{item.name}", item.value, known)
        raise UserError(f"{group.name}={option}: {message}" if place == group.name else message)
    try:
        typed = OmegaConf.merge(structured(schema), node)
    except OmegaConfBaseException as error:
        raise UserError(f"{place}.{explain_type(error)}") from None
    refuse_nested(schema, typed, f"{place}.")
    check_values(schema, typed, f"{place}.")
    return typed


def _name(node: DictConfig, group: Group, choice: str | None) -> None:
    """Sets an option's `name` to the name of its file, `choice`, unless the group allows other names."""
    if group.named_by_file and choice is not None:
        node[NAME] = choice


def _refuse_other_name(typed: str, node: DictConfig, group: Group, choice: str | None) -> None:
    if group.named_by_file and node.get(NAME) != choice:
        raise UserError(
            f"{typed} is not allowed: an option has the name of its YAML file; {group.name}=<option> chooses one"
        )


def _check_ignored(node: DictConfig, group: Group, job: Job) -> None:
    """Checks each key that the chosen option ignores against its limits in another option, which reads the key."""
    own = signature_of_option(node).keys
    for name in group.taken_everywhere:
        if name not in node or name in own:
            continue
        readers = [signature_of(target).keys for target in targets_of(group.name, job.search).values()]
        parameter = next(keys[name] for keys in readers if name in keys)
        schema = make_dataclass("Ignored", [(name, parameter.type, key(parameter.default, **vars(parameter.limits)))])
        schema = make_dataclass("Ignored", [(group.name, schema, field(default_factory=schema))])
        given = OmegaConf.create({group.name: {name: node._get_node(name)}}, parent=node._get_parent())
        check_values(schema, _resolved(_typed(schema, given, job)))


def _refuse_no_target(node: DictConfig, group: Group, choice: str | None = None) -> None:
    if not group.options_have_keys:
        return
    may_be_null = any(item.name == TARGET and item.default is None for item in fields(group.keys))
    if not isinstance(node.get(TARGET), str) and not (may_be_null and TARGET in node):
        raise UserError(
            f"{group.name}={choice or node.get(NAME)} has no {TARGET}: its YAML file must give one, {TARGET}: package.module.name"
        )


def _ignored_by(group: Group, job: Job) -> Sequence[str]:
    """The keys that an option of the group may ignore in this job: none if it is only the default.

    Whoever sets such a key without choosing the option means one that reads it.
    """
    if not group.taken_everywhere or group.name not in {override.key_or_group for override in parse(job.typed)}:
        return ()
    return group.taken_everywhere


def _take_out_unread(node: DictConfig, group: Group, ignored: Sequence[str]) -> list[Unread]:
    """Removes from `node` all keys that its option does not read, and returns those that are not `ignored`."""
    signature = signature_of_option(node)
    if signature.takes_any:
        return []
    known = {item.name for item in fields(group.keys)} | signature.keys.keys()
    found = []
    for name in [name for name in node if name not in known]:
        if name not in ignored:
            found.append(Unread(group, str(name), node._get_node(name)))
        del node[name]
    return found


def _refuse_lists(node: DictConfig, group: Group, job: Job) -> None:
    """Raises `UserError` if a key that takes one value holds a list; the message names the options that take a list."""
    for name, parameter in signature_of_option(node).keys.items():
        if name in node and OmegaConf.is_list(node._get_node(name)) and not parameter.takes_list:
            targets = targets_of(group.name, job.search).items()
            takers = [option for option, target in targets if _takes_list(target, name)]
            wanted = f"a list is for {group.name}={', '.join(takers)}" if takers else "one value, not a list"
            raise UserError(f"{group.name}.{name}={node[name]} is not allowed: {wanted}")


def _takes_list(target: str, name: str) -> bool:
    own = signature_of(target).keys
    return name in own and own[name].takes_list


def _typed(schema: type, given: DictConfig, job: Job) -> DictConfig:
    try:
        return OmegaConf.merge(structured(schema), OmegaConf.to_container(given, resolve=False))
    except OmegaConfBaseException as error:
        raise UserError(explain_type(error, parse(job.typed))) from None


@cache  # a process has few options
def _our_option(group: Group, option: str, place: str) -> DictConfig:
    """An option of our `conf/` with all its keys, none of which a job has set. It must not be changed."""
    node = load_options({(group.name, option): place})[group.name][option]
    OmegaConf.set_struct(node, False)
    return complete_option(group, option, node, place)


def _resolved(config: DictConfig, part: str | None = None) -> DictConfig:
    try:
        OmegaConf.resolve(config if part is None else config[part])
    except OmegaConfBaseException:
        raise UserError(explain_reference(config)) from None
    return config


def _bring_options(config: DictConfig, schema: type, unread: list[Unread], job: Job) -> list[Unread]:
    """Fills `config.options` with the options to which `config` refers by name.

    The keys in `unread` are not read by the chosen option of their group. If `config` refers by name to other
    options of the group that read such a key, the key is set in all of these options. Returns the keys that were set
    nowhere.
    """
    typed, groups = config[OPTIONS], {group.name: group for group in job.command.known_groups}
    wanted = dict(references_in(schema, config))
    options_of = cache(job.search.options)  # asked dozens of times, and each time Hydra would list the folders
    for group in job.command.groups.values():
        if group.refers_to is not None:
            found = group.refers_to(config, options_of)
            wanted |= dict.fromkeys(found, group.name)
    for name, option in job.inherited - wanted.keys():
        typed.get(name, {}).pop(option, None)
        if name in typed and not typed[name]:
            del typed[name]
    refuse_strangers(options_schema(tuple(wanted)), typed, f"{OPTIONS}.")
    loaded = load_options(wanted, job.search) if wanted else OmegaConf.create({})
    leftovers, changed = [], {pair for pair in wanted if OmegaConf.select(typed, ".".join(pair))}
    for item in unread:
        found = loaded.get(item.group.name, {})
        readers = [name for name, node in found.items() if item.name in signature_of_option(node).keys]
        for name in readers:
            found[name][item.name] = item.value
            changed.add((item.group.name, name))
        if not readers:
            leftovers.append(item)
    for name, option in wanted:
        place = f"{OPTIONS}.{name}.{option}"
        if (name, option) in changed or job.search.places:  # a folder of the user's may hide one of our options
            node = loaded[name][option]
            OmegaConf.set_struct(node, False)
            if given := OmegaConf.select(typed, f"{name}.{option}"):
                node = OmegaConf.merge(node, given)
            node = complete_option(groups[name], option, node, place)
        else:
            node = _our_option(groups[name], option, place)
        OmegaConf.update(config, place, node, merge=False, force_add=True)
    _resolved(config, OPTIONS)
    for name, option in wanted:
        node = config[OPTIONS][name][option]
        check_values(schema_of(groups[name], node), node, f"{OPTIONS}.{name}.{option}.")
    return leftovers


def _explain_unread(item: Unread, config: DictConfig, job: Job) -> str:
    """Says which options read a key that the chosen option does not read; if none do, which key was probably meant."""
    told = job.typed_for(item.full_name)
    if item.reason is not None:
        return f"{told} is not allowed: {item.reason}"
    option = job.choices.get(item.group.name, config[item.group.name].get(NAME))
    if told is None:
        return f"{item.group.name}={option} has a key {item.name} that its _target_ does not take"
    readers = _readers(item, job.search)
    if not readers:
        value, targets = told.partition("=")[2], targets_of(item.group.name, job.search).values()
        others = sorted({name for target in targets for name in signature_of(target).keys})
        close = [f"{item.group.name}.{name}" for name in get_close_matches(item.name, others, n=1)]
        known = [*all_keys(config), *close]
        return no_such_key(item.full_name, value, known, job.command.groups.values())
    hint = _only_for(item, readers)
    if general := [name for name in item.group.general_options if name in readers]:
        if OmegaConf.is_list(item.value):  # prefer an option that takes a list
            general = [name for name in general if _takes_list(readers[name], item.name)] or general
        hint = f"did you mean {item.group.name}={general[0]} {for_shell(told)}?"
    return _not_read(told, item, option, hint)


def _not_read(told: str, item: Unread, option: str, hint: str) -> str:
    return f"{told} is not allowed: {item.group.name}={option} does not read {item.full_name}; {hint}"


def _only_for(item: Unread, readers: Iterable[str]) -> str:
    return f"it is for {item.group.name}={', '.join(readers)}"


def _readers(item: Unread, search: SearchPath) -> dict[str, str]:
    """The options of the group that read a key, with their `_target_`."""
    targets = targets_of(item.group.name, search)
    return {name: target for name, target in targets.items() if item.name in signature_of(target).keys}
