"""Reads a command line as typed: quotes paths and conditions for Hydra's grammar, and reports mistakes in one line."""

import argparse
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException

from distdiff.errors import UserError

QUOTES, OPENING, CLOSING = "'\"", "[{(", "]})"


def read_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses `arguments`. The attributes of the result are Hydra's flags, and `overrides` with all other arguments.

    Raises `UserError` for a flag that is not allowed.
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
    if known.resolve and not (known.cfg or known.help):
        raise UserError("--resolve is not allowed alone: use --cfg job --resolve")
    if not others:
        return known
    flag, equals, value = others[0].partition("=")
    name = flag.lstrip("-").replace("-", "_")
    if name == "config":
        raise UserError(f"there is no {flag}: a command reads conf/<command>.yaml, and key=value changes a value in it")
    following = list(arguments[list(arguments).index(others[0]) + 1 :])
    if not equals:
        value = following[0] if following and following[0][0:1] != "-" and "=" not in following[0] else "..."
    raise UserError(f"{flag} is not a flag; keys have no dashes: {name}={value}")


def in_grammar(overrides: Iterable[str], paths: Collection[str] = (), texts: Collection[str] = ()) -> list[str]:
    """`overrides` in Hydra's grammar: paths, conditions and sentences are quoted if need be. `~` in paths is expanded.

    `paths` and `texts` are the keys whose values are paths and sentences. Raises `UserError` for a list
    that the shell has split at its spaces, and for an argument that is not an override.

    >>> paths = {"dataset.root", "train.expanded"}
    >>> in_grammar(["seed=1", "train.where=strength < 0.5", "dataset.root=/a (1)/b=c", "train.expanded=[/a,/b & c]"], paths)
    ['seed=1', "train.where='strength < 0.5'", "dataset.root='/a (1)/b=c'", "train.expanded=[/a,'/b & c']"]
    >>> in_grammar(["dataset.class_names={a: b, c: d}", "dataset.root=choice(/a,/b & c)"], paths)
    ['dataset.class_names={a: b, c: d}', "dataset.root=choice(/a,'/b & c')"]
    """
    overrides = list(overrides)
    for position, override in enumerate(overrides):
        _refuse_cut(override, overrides[position + 1 :])
    worded = [_worded(override, paths, texts) for override in overrides]
    for override, before in zip(worded, [None, *overrides], strict=False):
        if not _parses(override):
            raise UserError(_unreadable(override, before))
    return worded


def refuse_sweeps(
    parsed: Iterable[Override],
    takes_list: Callable[[], Collection[str]],
    paths: Collection[str] = (),
    texts: Collection[str] = (),
) -> None:
    """Raises `UserError` if an override gives several values to a key, which a single run does not allow.

    `takes_list()` returns the keys that may hold lists; `paths` and `texts` are the keys that hold paths and sentences.
    All three affect only the error message's hints: to put a list in brackets, or to quote a text that has a comma.
    """
    for override in parsed:
        if not override.is_sweep_override():
            continue
        key, value = override.key_or_group, override.input_line.partition("=")[2]
        hints = [f"a sweep needs -m: -m {override.input_line}"]
        if key in takes_list() and override.is_choice_sweep():
            hints.append(f"a list has brackets: '{key}=[{value}]'")
        if key in paths or key in texts:
            hints.append(f'a comma in a text is quoted: "{key}={in_quotes(value)}"')
        raise UserError(f"{override.input_line} has several values: {'; '.join(hints)}")


def in_quotes(text: str) -> str:
    """`text` as a quoted value in Hydra's grammar.

    >>> print(in_quotes("bob's"))
    'bob\\'s'
    """
    return QuotedString(text, Quote.single).with_quotes()


def _worded(override: str, paths: Collection[str], texts: Collection[str]) -> str:
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    if not equals or not value:
        return override
    if name in paths and not value.startswith("{") and ("~" in value or not _parses(override)):
        if value.startswith("choice(") and value.endswith(")"):
            return f"{key}=choice({','.join(map(_path, _parts(value[7:-1])))})"
        return f"{key}={','.join(map(_path, _parts(value)))}"
    if (name.endswith(".where") or name in texts) and not _parses(override):
        return f"{key}={in_quotes(value)}"
    if value[0] in "[{" and not _parses(override):
        return f"{key}={overrides_in_quotes(value)}"
    return override


def overrides_in_quotes(value: str) -> str:
    """The list or mapping `value` with quotes around each element that is itself an override (`key=value`).

    >>> overrides_in_quotes("{control: [guidance=transform, expansion.strength=[0.5,0.7]], b: ['x=1', c]}")
    "{control: ['guidance=transform', 'expansion.strength=[0.5,0.7]'], b: ['x=1', c]}"
    """
    written, word, depth, quote = "", "", 0, ""
    for char in value:
        if quote or char in QUOTES:
            quote = "" if char == quote else (quote or char)
            word += char
        elif "=" in word and char in OPENING:
            word, depth = word + char, depth + 1
        elif depth and char in CLOSING:
            word, depth = word + char, depth - 1
        elif not depth and (char in OPENING + CLOSING + "," or (char == ":" and "=" not in word)):
            written, word = written + _override_in_quotes(word) + char, ""
        else:
            word += char
    return written + _override_in_quotes(word)


def _override_in_quotes(word: str) -> str:
    text = word.strip()
    if "=" not in text or text[0] in QUOTES:
        return word
    return word.replace(text, in_quotes(text))


def _path(value: str) -> str:
    """Quotes a path or each path in a list where Hydra's grammar needs quotes, and expands `~`."""
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(map(_path, _parts(value[1:-1])))}]"
    quoted = len(value) > 1 and value[0] in QUOTES and value[-1] == value[0]
    text = value[1:-1] if quoted else value
    if not text.startswith("~"):
        return value if quoted or not value or _parses(f"key={value}") else in_quotes(value)
    home = str(Path("~").expanduser())
    expanded = home + text[1:] if text == "~" or text.startswith("~/") else text
    return value[0] + expanded + value[0] if quoted else in_quotes(expanded)


def _parts(value: str) -> list[str]:
    """Splits `value` at the commas outside quotes and brackets; a quoted text begins only at the start of a part."""
    parts, depth, quote = [""], 0, ""
    for before, char in itertools.pairwise("," + value):
        if quote:
            quote = "" if char == quote and before != "\\" else quote
        elif char in QUOTES and not parts[-1].strip("[ "):
            quote = char
        elif char == "," and depth == 0:
            parts.append("")
            continue
        elif char == "[" and not parts[-1].strip("[ "):  # a bracket within a path is an ordinary character
            depth += 1
        elif char == "]" and depth:
            depth -= 1
        parts[-1] += char
    return [part.strip() for part in parts]


def _refuse_cut(override: str, following: Sequence[str]) -> None:
    """Raises `UserError` for a list typed without quotes: the shell splits `key=[0.5, 0.7]` into two arguments."""
    key, equals, value = override.partition("=")
    if not equals or value[0:1] not in ("[", "{") or not _open(value):
        return
    whole = next((joined for joined in _joined(value, following) if not _open(joined)), None)
    if whole is not None:
        raise UserError(f"{override} is cut off at a space: quote it: '{key}={whole}'")


def _joined(value: str, following: Sequence[str]) -> Iterator[str]:
    def join(left: str, right: str) -> str:
        return f"{left}{'' if left.endswith(',') else ' '}{right}"

    return itertools.accumulate(following, join, initial=value)


def _open(value: str) -> bool:
    return sum(map(value.count, OPENING)) > sum(map(value.count, CLOSING))


def _parses(override: str) -> bool:
    try:
        OverridesParser.create().parse_overrides([override])
    except OverrideParseException:
        return False
    return True


def _unreadable(override: str, before: str | None) -> str:
    key, equals, value = override.partition("=")
    if equals and _open(value):
        return f"{override!r} cannot be read: a bracket is not closed"
    if equals and key:
        return (
            f"{override!r} cannot be read: a value with characters other than letters, digits and -_./ is quoted: "
            f'"{key}={in_quotes(value)}"'
        )
    if before and "=" in before and not equals:
        return (
            f"{override!r} is not an override: write key=value; a value with a space is quoted: '{before} {override}'"
        )
    return f"{override!r} is not an override: write key=value"
