"""Configuration keys: which values they may take, and how an option is built from its keys.

A configuration group is a folder below `conf/`; each of its options is one YAML file. The keys that every option of a
group has are a dataclass of `key(...)` fields. An option's own keys are the keyword-only arguments of the function,
class or method that its `_target_` names. The arguments before the `*` are not keys: the program passes them.

    def randaugment(*, num_ops: PositiveInt, magnitude: Magnitude) -> nn.Module: ...

If a class's constructor ends in `**keys` and passes them to its base class, the class has the base class's keys too.
A default is written in one place: in the YAML file or, for a key that is rarely changed, in the signature.

This module imports nothing heavy.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import MISSING, DictConfig, OmegaConf

from distdiff.errors import UserError

TARGET, NAME = "_target_", "name"
LARGEST_SIDE = 13377  # pixels; Pillow refuses to open a larger square, and WebP ends at 16383


@dataclass(frozen=True)
class Limits:
    """Limits on the values of a key, in addition to its type; for a list, they apply to each element.

    `choices` lists all allowed values. `words` lists the strings that are allowed in place of an integer. `option_of`
    names a group; the value must be the name of one of this group's options.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    choices: tuple[Any, ...] | None = None
    words: tuple[str, ...] | None = None
    option_of: str | None = None

    def as_metadata(self) -> dict[str, Any]:
        """The limits that are set, as a dataclass field's metadata."""
        return {name: limit for name, limit in vars(self).items() if limit is not None}


NonNegative = Annotated[float, Limits(at_least=0)]
Positive = Annotated[float, Limits(above=0)]
Share = Annotated[float, Limits(at_least=0, at_most=1)]
PositiveInt = Annotated[int, Limits(at_least=1)]
Pixels = Annotated[int, Limits(at_least=8)]


def key(default: Any = MISSING, **limits: Any) -> Any:
    """A dataclass field for a key, with the `Limits` on its values; without a `default`, a value must be given."""
    metadata = Limits(**limits).as_metadata()
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Group:
    """A configuration group: the keys that all its options have, and the checks of keys before anything is loaded.

    - `options_have_keys`: each option has keys of its own, from the signature of its `_target_`.
    - `taken_everywhere`: keys that an option ignores if it was chosen and has no use for them, so that sweeps may mix options.
    - `check(config)` gets the whole configuration of a job, and raises `UserError` if something in it is not allowed.
    - `warn(config)` gives a sentence for each setting that is allowed but that the user may not have meant.
    - `unread(config)` gives the keys and groups that nothing reads in this configuration, each mapped to the reason.
      Overrides of these keys and groups are refused, except overrides of keys in `taken_everywhere`.
    - `refers_to(config, options_of)` gives further options that the job needs, as (group, option). These are put into
      `config.options`. `options_of(group)` lists the options of a group.
    - `variants(config, job)` gives further configurations of the job, as a mapping from names to overrides. For each
      name, the configuration with its overrides, but without this group, is put into `config.options.rows.<name>`.
    - `general_options`: the options that are not for one particular dataset. If a key is given to an option that does
      not read it, these options are suggested first.
    - `paths`: the keys whose values are paths, in which `~` stands for the home directory. With `hydra.job.chdir=true`,
      relative paths are taken from the directory in which the command was started. `hub_ids` are those of them that may
      also name something that is no path, such as a hub id.
    - `defaults` maps each key without a value to its values in a single run and in a job of a multirun.
    - `also_called` maps a key's name in a related library, or its full name in an earlier version, to the full name of
      the key here.
    - `refused` maps names that the library behind the group knows, but that are no keys here, to the reason in words.
    - `takes_several`: several options may be chosen at once, `group=[a,b]`, or none.
    """

    name: str
    keys: type
    options_have_keys: bool = False
    taken_everywhere: tuple[str, ...] = ()
    check: Callable[[DictConfig], None] | None = None
    warn: Callable[[DictConfig], Iterable[str]] | None = None
    unread: Callable[[DictConfig], Mapping[str, str]] | None = None
    refers_to: Callable[[DictConfig, Callable[[str], list[str]]], Iterable[tuple[str, str]]] | None = None
    variants: Callable[[DictConfig, Any], Mapping[str, list[str]]] | None = None  # of a `config.composing.Job`
    general_options: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    hub_ids: tuple[str, ...] = ()
    defaults: Mapping[str, tuple[Any, Any]] = field(default_factory=dict, hash=False)
    also_called: Mapping[str, str] = field(default_factory=dict, hash=False)
    refused: Mapping[str, str] = field(default_factory=dict, hash=False)
    takes_several: bool = False

    @property
    def named_by_file(self) -> bool:
        """Whether an option's `name` is always the name of its YAML file."""
        return [item.type for item in fields(self.keys) if item.name == NAME] == [str]


def build(option: Mapping[str, Any], *context: Any, **more: Any) -> Any:
    """Calls an option's `_target_` with `context`, and with the keys of the option and of `more` that the target takes.

    A `UserError` of the target is raised unchanged.
    """
    keys = OmegaConf.to_container(option, resolve=True) if isinstance(option, DictConfig) else dict(option)
    target = keys.pop(TARGET)
    taken = keys_taken_by(get_object(target))
    chosen = {name: value for name, value in (keys | more).items() if _is_taken(name, taken)}
    try:
        return instantiate({TARGET: target, **chosen}, *context)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise


def keys_taken_by(target: Callable[..., Any]) -> set[str] | None:
    """The names of a callable's keyword-only arguments; None if the callable takes arguments of any name."""
    parameters, takes_any = keyword_only(target)
    return None if takes_any else set(parameters)


def keyword_only(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """A callable's keyword-only arguments by name, and whether it takes arguments of any other name.

    A constructor with `**keys` is assumed to pass them to its base class, so it takes the arguments of the base class
    too.
    """
    if isinstance(target, type):
        owners = [each for each in target.__mro__ if "__init__" in vars(each) and each is not object]
        constructors = [vars(each)["__init__"] for each in owners]
    else:
        constructors = [target]
    found: dict[str, inspect.Parameter] = {}
    for constructor in constructors:
        parameters = inspect.signature(constructor).parameters.values()
        found = {item.name: item for item in parameters if item.kind is item.KEYWORD_ONLY} | found
        if not any(item.kind is item.VAR_KEYWORD for item in parameters):
            return found, False
    return found, bool(constructors)


def option_identity(option: Mapping[str, Any]) -> dict[str, Any]:
    """Identifies the object that an option builds: its `_target_`, and the keys that the `_target_` takes."""
    return {TARGET: option[TARGET]} | own_keys(option)


def own_keys(option: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of an option that its `_target_` takes, with their values: only these change what the option does."""
    taken = keys_taken_by(get_object(option[TARGET]))
    plain = OmegaConf.to_container(option, resolve=True) if isinstance(option, DictConfig) else dict(option)
    return {name: value for name, value in plain.items() if name != TARGET and _is_taken(name, taken)}


def _is_taken(name: str, taken: set[str] | None) -> bool:
    """Whether a target gets the key `name`. If `taken` is None, the target gets any key except the option's name."""
    return name != NAME if taken is None else name in taken
