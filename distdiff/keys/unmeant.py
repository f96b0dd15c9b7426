"""Refuses overrides that Hydra would accept, or answer at length, but that the user cannot have meant."""

from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.override_parser.types import Override

from distdiff.errors import UserError
from distdiff.keys import Group
from distdiff.keys.suggesting import as_typed, for_shell

CHOSEN_BY_SLASH = ("hydra.sweeper", "hydra.launcher")


def refuse_unmeant(groups: Mapping[str, Group], parsed: Iterable[Override], multirun: bool) -> None:
    """Raises `UserError` for the first override that cannot be meant; `groups` are the command's, by name."""
    for override in parsed:
        name, typed = override.key_or_group, override.input_line
        if override.is_delete():
            if name.partition("/")[0] != "hydra" and not name.startswith("hydra."):
                raise UserError(f"{typed} is not allowed: a key or group cannot be taken out; {name}=... sets it")
            if "/" in name:
                raise UserError(f"{typed} is not allowed: Hydra needs one; {name}=... chooses it")
            continue
        if override.is_sweep_override():
            if not multirun:
                _refuse_sweep(override)
            continue
        value = override.value()
        if name == "command":
            raise UserError(f"{typed} is not allowed: the script, or distdiff <command>, says which command is run")
        if name in CHOSEN_BY_SLASH and isinstance(value, str):
            raise UserError(f"{typed} is not allowed: did you mean {name.replace('.', '/')}={value}?")
        if name in groups and isinstance(value, dict):
            keys = " ".join(_as_argument(f"{name}.{key}", item) for key, item in value.items())
            raise UserError(f"{typed} is not allowed: {name} takes the name of an option; type its keys: {keys}")
        if name in groups and isinstance(value, list) and not groups[name].takes_several:
            sweep = for_shell(f"{name}={','.join(map(str, value))}")
            raise UserError(f"{typed} is not allowed: {name} takes the name of one option; a sweep is -m {sweep}")


def _refuse_sweep(override: Override) -> None:
    name, value = override.key_or_group, override.input_line.partition("=")[2]
    hints = [f"a sweep needs -m: -m {for_shell(override.input_line)}"]
    if override.is_choice_sweep() and override.value().simple_form:
        hints.append(f"a list has brackets: {for_shell(f'{name}=[{value}]')}")
        hints.append(f"a text is quoted: {as_typed(name, value)}")
    raise UserError(f"{override.input_line} has several values: {'; '.join(hints)}")


def _as_argument(key: str, value: Any) -> str:
    """The argument that sets `key` to a value that Hydra's parser returned."""
    if isinstance(value, str) and not value.isalnum():
        return as_typed(key, value)
    return for_shell(f"{key}={'null' if value is None else value}")
