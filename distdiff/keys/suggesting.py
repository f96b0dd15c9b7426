"""Finds the name that was probably meant, and the argument to type, for error messages."""

import difflib
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig

from distdiff.keys import Group

ALIKE = 0.6  # the smallest difflib ratio at which a name may be a misspelling of another


def suggest(key: str, known: list[str], called: Mapping[str, str]) -> str:
    """Suggests which of the `known` keys was meant by `key`, or lists the keys of its group if no key is similar.

    `called` maps names that other libraries or earlier versions use for keys to the full names of the same keys here.
    """
    leaf = key.rsplit(".", 1)[-1]
    if (here := called.get(key, called.get(leaf))) in known:
        return f"here it is called {here}"
    same_leaf = [name for name in known if name.rsplit(".", 1)[-1] == leaf]
    # All keys of a group begin with the group's name, so the last parts of the names are compared too.
    alike = [name for name in known if difflib.SequenceMatcher(None, name.rsplit(".", 1)[-1], leaf).ratio() >= ALIKE]
    close = difflib.get_close_matches(key, same_leaf or alike, n=1, cutoff=0 if same_leaf else ALIKE)
    if close:
        return f"did you mean {close[0]}?"
    siblings = [name for name in known if name.startswith(key.split(".")[0] + ".")]
    siblings = siblings or [name for name in known if "." not in name]
    return "its keys: " + ", ".join(siblings)


def no_such_key(name: str, value: Any, known: list[str], groups: Iterable[Group] = ()) -> str:
    """Says that there is no key `name`, and which of the `known` keys was probably meant.

    `groups` know what related libraries call their keys, and why some names of these libraries are no keys here.
    """
    groups = tuple(groups)
    for group in groups:
        if name.startswith(f"{group.name}.") and (reason := group.refused.get(name.removeprefix(f"{group.name}."))):
            return f"{name}={value} is not allowed: {reason}"
    return f"{name}={value} is not allowed: there is no such key; {suggest(name, known, aliases(groups))}"


def all_keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """The dotted names of all keys and groups of a configuration."""
    for name in config:
        yield f"{prefix}{name}"
        node = config._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none():
            yield from all_keys(node, f"{prefix}{name}.")


def one_of(value: str, names: list[str]) -> str:
    """Says what is allowed instead of `value`: all of `names`, and the name that was probably meant."""
    close = difflib.get_close_matches(value, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"one of {', '.join(names)}{hint}"


def aliases(groups: Iterable[Group]) -> dict[str, str]:
    """Maps each name that a related library or an earlier version uses for a key to the key's full name here."""
    return {other: ours for group in groups for other, ours in group.also_called.items()}


def in_quotes(text: str) -> str:
    """`text` as a quoted value in Hydra's grammar.

    >>> print(in_quotes("bob's"))
    'bob\\'s'
    """
    return QuotedString(text, Quote.single).with_quotes()


def as_typed(key: str, value: str) -> str:
    """The argument that, typed into a POSIX shell, sets `key` to the text `value`.

    >>> print(as_typed("dataset.root", "/my (1)"))
    "dataset.root='/my (1)'"
    """
    return for_shell(f"{key}={in_quotes(value)}")


def for_shell(argument: str) -> str:
    """The argument as it is typed into a POSIX shell, in quotes if need be.

    >>> print(for_shell("seed=1"), for_shell("x='a b'"))
    seed=1 "x='a b'"
    """
    quoted = shlex.quote(argument)
    if quoted == argument or set(argument) & set('"$`\\!') or "'" not in argument:  # what double quotes do not protect
        return quoted
    return f'"{argument}"'
