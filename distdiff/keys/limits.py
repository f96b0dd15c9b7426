"""Checks the values of keys against their limits, and puts limits and types into words."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distdiff.errors import UserError, first_line
from distdiff.keys import TARGET
from distdiff.keys.suggesting import all_keys

TYPE_NAMES = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false", "List": "a list, [a, b]"}
WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", list: "a list, [a, b]"}
NOT_NUMBERS = "a finite number"  # OmegaConf accepts nan and inf as floats


def check_values(schema: type, config: DictConfig, prefix: str = "") -> None:
    """Raises `UserError` for a key without a value, and for a value that the key does not allow."""
    for name, value, limits in _constrained(schema, config, prefix):
        _check(name, value, limits)


def refuse_nested(schema: type, config: DictConfig, prefix: str = "") -> None:
    """Raises `UserError` for a list or mapping inside a list of texts or numbers, where OmegaConf allows it."""
    for item in fields(schema):
        name, node = f"{prefix}{item.name}", config._get_node(item.name)
        if is_dataclass(item.type) and OmegaConf.is_dict(node):
            refuse_nested(item.type, node, f"{name}.")
        elif OmegaConf.is_list(node) and (words := WORDS.get(node._metadata.element_type)) and not node._is_none():
            for index, part in enumerate(node):
                if OmegaConf.is_config(part):
                    raise UserError(f"{name}[{index}]={part} is not allowed: {words}")


def describe(limits: Mapping[str, Any]) -> str:
    """The allowed values in words: `a number above 0, at most 1`."""
    if "choices" in limits:
        return "one of " + ", ".join(one if isinstance(one, str) else json.dumps(one) for one in limits["choices"])
    words = {"at_least": "at least", "above": "above", "at_most": "at most"}
    bounds = [f"{words[name]} {limits[name]}" for name in words if name in limits]
    if "words" in limits:
        return "an integer " + ", ".join(bounds) + "".join(f", or {word}" for word in limits["words"])
    return "a number " + ", ".join(bounds) if bounds else ""


def _constrained(schema: type, config: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for item in fields(schema):
        name = f"{prefix}{item.name}"
        if OmegaConf.is_interpolation(config, item.name):
            continue  # resolved and checked later, when the option is part of a job's configuration
        if OmegaConf.is_missing(config, item.name):
            if item.name != TARGET:
                raise UserError(f"{name} has no value: give one, {name}=...")
            continue
        value = config[item.name]
        if is_dataclass(item.type):
            yield from _constrained(item.type, value, f"{name}.")
        elif item.type is Any and {"words", "choices"} & item.metadata.keys():  # a value that OmegaConf does not check
            yield name, value, dict(item.metadata)
        elif OmegaConf.is_dict(value):
            yield from ((f"{name}.{part}", value[part], dict(item.metadata)) for part in value)
        elif OmegaConf.is_list(value):
            yield from ((f"{name}[{index}]", part, dict(item.metadata)) for index, part in enumerate(value))
        elif value is not None:
            yield name, value, dict(item.metadata)


def _check(name: str, value: Any, limits: dict[str, Any]) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}={value} is not allowed: {describe(limits) or NOT_NUMBERS}")
    if "choices" in limits:
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in limits["choices"]):
            raise UserError(f"{name}={'null' if value is None else value} is not allowed: {describe(limits)}")
        return
    if "words" in limits:
        if value in limits["words"]:
            return
        value = "null" if value is None else value
    numeric = {"at_least", "above", "at_most"} & limits.keys()
    if not numeric:
        return
    number = int if "words" in limits else (int, float)
    fits = isinstance(value, number) and not isinstance(value, bool)
    fits = fits and value >= limits.get("at_least", -math.inf)
    fits = fits and value > limits.get("above", -math.inf)
    fits = fits and value <= limits.get("at_most", math.inf)
    if not fits:
        raise UserError(f"{name}={value} is not allowed: {describe(limits)}")


def explain_type(error: OmegaConfBaseException, parsed: Iterable[Override] = ()) -> str:
    """One line for a value of the wrong type: key, value, and the type that is allowed."""
    reason = str(error).splitlines()[0]
    parsed = list(parsed)
    key = error.full_key or next((o.key_or_group for o in parsed), "")
    if "is not a ListConfig" in reason:
        given = next((f"={o.value()}" for o in parsed if o.key_or_group == key), "")
        return f"{key}{given} is not allowed: a list, [a, b]"
    is_null = any(
        each in reason for each in ("is not Optional", "NoneType is not a subclass", "value 'None' for field")
    )
    if is_null:
        return f"{key}=null is not allowed: {_wanted(error) or 'it needs a value'}"
    if text := re.search(r"Cannot convert '.*?' to string: '(.*)'$", reason):
        return f"{key}={text.group(1)} is not allowed: {WORDS[str]}"
    value = re.search(r"Value '(.*?)' (?:of type '\w+' (?:could|is)|could not|is not)", reason)
    wanted = next((words for name, words in TYPE_NAMES.items() if name in reason), None)
    if value is None or wanted is None:
        return f"{key}: {reason}"
    return f"{key}={value.group(1)} is not allowed: {wanted}"


def explain_reference(config: DictConfig) -> str:
    """One line for the first key whose value refers to something that cannot be resolved."""
    for name in all_keys(config):
        try:
            OmegaConf.select(config, name)
        except OmegaConfBaseException as error:
            parent, _, own = name.rpartition(".")
            node = config if not parent else OmegaConf.select(config, parent)
            return f"{name}={node._get_node(own)._value()} is not allowed: {first_line(error)}"
        except RecursionError:
            return f"{name} is not allowed: it refers to itself"
    return "a value refers to something that cannot be resolved"


def _wanted(error: OmegaConfBaseException) -> str | None:
    """The type of the key or of the list's element that an error is about, in words."""
    owner = _unless_null(error.ref_type)
    if is_dataclass(owner):
        item = next((item for item in fields(owner) if item.name == error.key), None)
        if item is not None and "choices" in item.metadata:
            return describe(item.metadata)
        kind = None if item is None else _unless_null(item.type)
    else:
        kind = next(iter(get_args(owner)), None) if get_origin(owner) is list else None
    return WORDS.get(get_origin(kind) or kind)


def _unless_null(kind: Any) -> Any:
    """The type itself of one that is `<type> | None`."""
    return next(each for each in get_args(kind) if each is not type(None)) if type(None) in get_args(kind) else kind
