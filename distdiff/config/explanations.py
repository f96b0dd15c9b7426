"""Explains an error of Hydra or OmegaConf in one line: key, value, what is allowed, and the closest valid name."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping

from hydra import compose
from hydra._internal.hydra import Hydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException, ValidationError

from distdiff.config.command import Command, schema_keys
from distdiff.config.options import one_of
from distdiff.errors import first_line

TYPE_NAMES = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false", "List": "a list, [a, b]"}
# Each launcher, and the extra of our package that installs it.
LAUNCHERS = {"cluster": "slurm", "submitit_slurm": "slurm", "submitit_local": "slurm", "joblib": "joblib"}
ALIKE = 0.6  # the smallest difflib ratio at which a name may be a misspelling of another


def explain_composition(hydra: Hydra, command: Command, parsed: list[Override], error: Exception) -> str:
    """Explains which override made composing fail; if no override did, gives the first line of Hydra's message."""
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, ValidationError):
        return explain_type(cause, parsed)
    loader = hydra.config_loader
    groups = {*command.groups, "hydra/launcher", "hydra/sweeper"}
    chosen = [override for override in parsed if override.key_or_group in groups]
    own = dict(schema_keys(command.schema))
    for override in parsed:
        name = override.key_or_group
        if name in own or override.is_add() or name.partition(".")[0] in command.groups:
            continue
        have = [f"{other.name}.py" for other in command.others() if name in dict(schema_keys(other.schema))]
        if have:
            listed = " and ".join(filter(None, (", ".join(have[:-1]), have[-1])))
            return (
                f"{override.input_line} is not allowed: {command.name}.py has no {name}; {listed} "
                f"{'have' if have[1:] else 'has'} it"
            )
    for override in chosen:
        names = loader.get_group_options(override.key_or_group, ObjectType.CONFIG)
        value = override.value()
        if override.key_or_group == "hydra/launcher" and _is_not_installed(value, names):
            return f"hydra/launcher={value} is not installed: pip install -e '.[{LAUNCHERS[value]}]'"
        if not override.is_sweep_override() and not isinstance(value, list) and value not in names:
            return f"{override.input_line} is not allowed: {one_of(str(value), names)}"
    try:
        base = compose(command.name, overrides=[o.input_line for o in chosen if not o.is_sweep_override()])
    except (HydraException, OmegaConfBaseException):
        return first_line(error)
    known = list(all_keys(base))
    for override in parsed:
        name = override.key_or_group
        if name in groups or name in known or override.is_add() or name.startswith("hydra"):
            continue
        return (
            f"{name}={override.value()} is not allowed: there is no such key; {suggest(name, known, aliases(command))}"
        )
    return first_line(error)


def explain_type(error: OmegaConfBaseException, parsed: Iterable[Override] = ()) -> str:
    """One line for a value of the wrong type: key, value, and the type that is allowed."""
    reason = str(error).splitlines()[0]
    parsed = list(parsed)
    key = error.full_key or next((o.key_or_group for o in parsed), "")
    if "is not a ListConfig" in reason:
        given = next((f"={o.value()}" for o in parsed if o.key_or_group == key), "")
        return f"{key}{given} is not allowed: a list, [a, b]"
    value = re.search(r"Value '(.*?)'", reason)
    wanted = next((words for name, words in TYPE_NAMES.items() if name in reason), None)
    if value is None or wanted is None:
        return f"{key}: {reason}"
    return f"{key}={value.group(1)} is not allowed: {wanted}"


def suggest(key: str, known: list[str], called: Mapping[str, str]) -> str:
    """Suggests which of the `known` keys was meant by `key`, or lists the keys of its group if no key is similar.

    `called` maps names that other libraries use for keys to the full names of the same keys here.
    """
    leaf = key.rsplit(".", 1)[-1]
    if called.get(leaf) in known:
        return f"here it is called {called[leaf]}"
    same_leaf = [name for name in known if name.rsplit(".", 1)[-1] == leaf]
    # All keys of a group begin with the group's name, so the last parts of the names are compared too.
    alike = [name for name in known if difflib.SequenceMatcher(None, name.rsplit(".", 1)[-1], leaf).ratio() >= ALIKE]
    close = difflib.get_close_matches(key, same_leaf or alike, n=1, cutoff=0 if same_leaf else ALIKE)
    if close:
        return f"did you mean {close[0]}?"
    siblings = [name for name in known if name.startswith(key.split(".")[0] + ".")]
    siblings = siblings or [name for name in known if "." not in name]
    return "its keys: " + ", ".join(siblings)


def aliases(command: Command) -> dict[str, str]:
    """Maps each name that a related library or an earlier version uses for a key of the command to the key's full name here."""
    return {other: ours for group in command.groups.values() for other, ours in group.also_called.items()}


def all_keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """The dotted names of all keys and groups of a configuration."""
    for name in config:
        yield f"{prefix}{name}"
        node = config._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none():
            yield from all_keys(node, f"{prefix}{name}.")


def _is_not_installed(launcher: str, names: list[str]) -> bool:
    """Whether `launcher` comes with a package that is not installed; `names` are the launchers that Hydra finds."""
    return launcher in LAUNCHERS and {"cluster": "submitit_slurm"}.get(launcher, launcher) not in names
