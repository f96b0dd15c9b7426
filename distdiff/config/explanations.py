"""Explains an error of Hydra or OmegaConf in one line: key, value, what is allowed, and the closest valid name."""

from collections.abc import Callable, Mapping

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from distdiff.config.command import Command
from distdiff.keys.limits import explain_type
from distdiff.keys.schema import schema_keys
from distdiff.keys.suggesting import all_keys, no_such_key, one_of

# The launchers and sweepers that come with a package, and the extra of our package that installs it.
EXTRAS = {
    "cluster": "slurm",
    "submitit_slurm": "slurm",
    "submitit_local": "slurm",
    "joblib": "joblib",
    "optuna": "optuna",
}


def explain_composition(
    command: Command,
    parsed: list[Override],
    error: Exception,
    known: Mapping[str, list[str]],
    compose: Callable[[list[str]], DictConfig | None],
) -> str:
    """Explains which override made composing fail; if no override did, gives Hydra's message as one line.

    `known` lists the options of each group. `compose` composes the command with some overrides; None if it cannot.
    """
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, ValidationError):
        return explain_type(cause, parsed)
    own = dict(schema_keys(command.schema))
    for override in parsed:
        name = override.key_or_group
        if name in own or override.is_add() or name.partition(".")[0] in command.groups:
            continue
        have = [other.name for other in command.others() if name in dict(schema_keys(other.schema))]
        if have:
            listed = ", ".join(have)
            return f"{override.input_line} is not allowed: the command {command.name} has no {name}; it is a key of {listed}"
    chosen = [override for override in parsed if override.key_or_group in known]
    for override in chosen:
        names, value = known[override.key_or_group], override.value()
        if (extra := EXTRAS.get(str(value))) and str(value).replace("cluster", "submitit_slurm") not in names:
            return f"{override.input_line} is not installed: pip install 'distdiff[{extra}]'"
        for one in [] if override.is_sweep_override() else value if isinstance(value, list) else [value]:
            if one not in names:
                return f"{override.input_line} is not allowed: {one_of(str(one), names)}"
    base = compose([override.input_line for override in chosen if not override.is_sweep_override()])
    keys = [] if base is None else [name for name in all_keys(base) if not name.startswith("hydra")]
    for override in parsed:
        name = override.key_or_group
        if isinstance(override.value(), dict) and base is not None and OmegaConf.is_list(OmegaConf.select(base, name)):
            return f"{override.input_line} is not allowed: a list, [a, b]"
        if base is None or name in known or name in keys or override.is_add() or name.startswith("hydra"):
            continue
        return no_such_key(name, override.value(), keys, command.groups.values())
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
