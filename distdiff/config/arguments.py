"""Reads a command line: Hydra's flags, and overrides that Hydra's grammar may not be able to read as they are typed."""

import argparse
import re
from collections.abc import Iterable, Sequence

import yaml
from hydra._internal.utils import get_args_parser
from hydra.errors import OverrideParseException

from distdiff.errors import UserError
from distdiff.keys.suggesting import as_typed, in_quotes
from distdiff.option_files.overrides import parse


def read_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses `arguments`. The attributes of the result are Hydra's flags, and `overrides` with all other arguments.

    Raises `UserError` for a flag that is not allowed, and for an override that cannot be read.
    """
    parser = get_args_parser()
    parser.allow_abbrev = False  # otherwise --config would match three flags

    def refuse(message: str) -> None:
        raise UserError(message)

    parser.error = refuse
    known, others = parser.parse_known_intermixed_args(list(arguments))
    if known.config_name is not None or known.config_path is not None:
        flag = "--config-name" if known.config_name is not None else "--config-path"
        raise UserError(
            f"{flag} is not allowed: a command reads conf/<command>.yaml; --config-dir adds a folder of options"
        )
    if known.experimental_rerun is not None:
        raise UserError(
            "--experimental-rerun is not allowed: it reads a pickle; <run>/.hydra/overrides.yaml has the overrides"
        )
    if known.shell_completion and not any(re.match("(un)?install=|query=", item) for item in known.overrides):
        raise UserError("--shell-completion is not allowed alone: add install=bash, uninstall=bash or query=bash")
    if known.run and known.multirun:
        raise UserError("--run is not allowed with --multirun (-m): give one of them")
    if known.resolve and not (known.cfg or known.help):
        raise UserError("--resolve is not allowed alone: use --cfg job --resolve")
    if others:
        flag, equals, value = others[0].partition("=")
        if flag.lstrip("-") == "config":
            raise UserError(f"there is no {flag}: a command reads conf/<command>.yaml; key=value changes a value in it")
        following = next(iter(list(arguments)[list(arguments).index(others[0]) + 1 :]), "")
        if not equals:
            value = following if following and following[0] != "-" and "=" not in following else "..."
        raise UserError(f"{flag} is not a flag; keys have no dashes: {flag.lstrip('-').replace('-', '_')}={value}")
    known.overrides = readable(known.overrides)
    return known


def readable(overrides: Iterable[str]) -> list[str]:
    """`overrides` as Hydra's grammar has them. Nearly all are returned unchanged.

    W&B's agent writes values as Python does, and lists and mappings are often written as YAML. Both are translated:
    `None`, and a list or mapping that Hydra cannot read. Raises `UserError` for any other override that Hydra cannot
    read; the message says how to quote it.

    >>> readable(["seed=1", "guidance.period=None", "expansion.strength={'low': 0.5, 'high': 0.9}"])
    ['seed=1', 'guidance.period=null', 'expansion.strength={low: 0.5, high: 0.9}']
    >>> readable(["study.rows={control: [guidance=transform, guidance.rho=0]}"])
    ["study.rows={control: ['guidance=transform', 'guidance.rho=0']}"]
    """
    return [
        override if _parses(override) and not override.endswith("=None") else _read(override) for override in overrides
    ]


def _read(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override!r} is not an override: write key=value")
    if value == "None":
        return f"{key}=null"
    if value[0:1] in ("[", "{"):
        try:
            translated = f"{key}={_in_grammar(yaml.compose(value, yaml.SafeLoader))}"
        except yaml.YAMLError:
            translated = ""
        if _parses(translated):
            return translated
        if any(value.count(opening) > value.count(closing) for opening, closing in ("[]", "{}")):
            raise UserError(
                f"{override!r} cannot be read: a bracket is not closed; a list with spaces is quoted: '{key}=[a, b]'"
            )
        if "=[" in value or "={" in value:
            raise UserError(f'{override!r} cannot be read: an element with brackets is quoted: ["key=[a, b]"]')
    if not _parses(f"{key}=x"):
        raise UserError(
            f"{override!r} cannot be read: {key!r} is no key; keys are made of ASCII letters, digits, _ and ."
        )
    if re.fullmatch(r"\w+\(.*\)", value):
        raise UserError(
            f"{override!r} cannot be read: it is no list of values, such as choice(1,2), range(1,5), glob(*)"
        )
    quoted = as_typed(key, value[1:-1] if value[0:1] in "'\"" and value[-1:] == value[0:1] else value)
    raise UserError(f"{override!r} cannot be read: quote the value: {quoted}")


def _in_grammar(node: yaml.Node) -> str:
    match node:
        case yaml.MappingNode(value=pairs):
            return f"{{{', '.join(f'{key.value}: {_in_grammar(value)}' for key, value in pairs)}}}"
        case yaml.SequenceNode(value=items):
            return f"[{', '.join(map(_in_grammar, items))}]"
    if node.style is None and node.value == "None":
        return "null"
    plain = node.style is None and _parses(f"key={node.value}")
    return node.value if plain else in_quotes(node.value)


def _parses(override: str) -> bool:
    try:
        parse([override])
    except OverrideParseException:
        return False
    return True


def refuse_shared(row: str, overrides: Sequence[str], changeable: Sequence[str]) -> None:
    """Raises `UserError` if one of the `overrides` of `row` is of a group that is not `changeable` but shared by all rows."""
    for override in parse(readable(overrides)):
        group = override.key_or_group.partition(".")[0]
        if group not in changeable:
            raise UserError(
                f"{row}: {override.input_line} is not allowed: rows share {group}; one may change {', '.join(changeable)}"
            )
