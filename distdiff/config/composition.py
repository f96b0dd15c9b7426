"""Composes a command's configuration as Hydra does, but answers a mistake in one line with the nearest right name."""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from distdiff.config.schema import COMMANDS, GROUPS
from distdiff.errors import UserError, first_line

CONFIG_DIR = Path(__file__).resolve().parents[2] / "conf"

for command_name, command_schema in COMMANDS.items():
    ConfigStore.instance().store(f"{command_name}_schema", command_schema)

TYPE_NAMES = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false", "List": "a list, [a, b]"}

# What the neighbouring libraries call it -> what it is called here.
FOREIGN_NAMES = {
    "num_inference_steps": "generator.num_steps",
    "inference_steps": "generator.num_steps",
    "steps": "generator.num_steps",
    "guidance_scale": "generator.cfg_scale",
    "torch_dtype": "generator.dtype",
    "pretrained_model_name_or_path": "generator.model",
    "model_id": "generator.model",
    "batch_size": "expansion.batch_size",
    "num_images_per_prompt": "expansion.factor",
    "max_steps": "train.steps",
    "max_epochs": "train.steps",
    "lr": "train.learning_rate",
    "n_clusters": "prototype.num_groups",
    "num_clusters": "prototype.num_groups",
    "guidance_step": "guidance.start_step",
    "guidance_period": "guidance.period",
    "gradient_scale": "guidance.rho",
}

LAUNCHERS = {"cluster": "slurm", "submitit_slurm": "slurm", "submitit_local": "slurm", "joblib": "joblib"}  # extras


def compose_jobs(config_name: str, overrides: list[str], multirun: bool) -> Iterator[DictConfig]:
    """Yields the configuration of every job that `overrides` ask for, one unless `multirun`.

    Raises `UserError` where Hydra cannot compose it.
    """
    overrides = quote_conditions(overrides)
    parsed = _parse(overrides)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for job in _sweep(parsed) if multirun else [overrides]:
            try:
                yield compose(config_name, overrides=list(job))
            except (HydraException, OmegaConfBaseException) as error:
                raise UserError(_explain(config_name, _parse(list(job)), error)) from None
    GlobalHydra.instance().clear()


def load_option(group: str, option: str) -> DictConfig:
    """One YAML file of a group, typed by its schema, without the command line's overrides."""
    path = CONFIG_DIR / group / f"{option}.yaml"
    if not path.is_file():
        raise UserError(f"{group}={option} is not allowed: {_one_of(option, options(group))}")
    return OmegaConf.merge(OmegaConf.structured(GROUPS[group]), OmegaConf.load(path))


def options(group: str) -> list[str]:
    """The options of a group, as `group=option` accepts them."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def swept_keys(overrides: Iterable[str]) -> set[str]:
    """The keys and groups that have several values."""
    given = _parse([item for item in overrides if "=" in item])
    return {override.get_key_element() for override in given if override.is_sweep_override()}


def quote_conditions(overrides: Iterable[str]) -> list[str]:
    """`<group>.where=<condition>` as a text in Hydra's grammar where that does not know it; others as they are.

    >>> quote_conditions(["seed=1", "train.where=strength < 0.5 and class_name == 'a'"])
    ['seed=1', "train.where='strength < 0.5 and class_name == \\\\'a\\\\''"]
    """
    return [_quoted(override) for override in overrides]


def _quoted(override: str) -> str:
    key, equals, condition = override.partition("=")
    if not equals or not key.endswith(".where"):
        return override
    try:
        OverridesParser.create().parse_overrides([override])
    except OverrideParseException:
        escaped = condition.replace("\\'", "\\\\'").replace("'", "\\'")
        return f"{key}='{escaped}'"
    return override


def _parse(overrides: list[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        raise UserError(f"{error.override!r} is not an override: write key=value") from None


def _sweep(parsed: list[Override]) -> Iterator[tuple[str, ...]]:
    choices = []
    for override in parsed:
        key = override.get_key_element()
        if override.is_sweep_override():
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line])
    return itertools.product(*choices)


def _explain(config_name: str, parsed: list[Override], error: Exception) -> str:
    """Finds the override that broke the composition; falls back on the first line of Hydra's own message."""
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, ValidationError):
        return explain_type(cause, parsed)
    loader = GlobalHydra.instance().config_loader()
    groups = {*loader.list_groups(""), "hydra/launcher"}
    chosen = [o for o in parsed if o.key_or_group in groups]
    for override in chosen:
        names = loader.get_group_options(override.key_or_group, ObjectType.CONFIG)
        value = override.value()
        if override.key_or_group == "hydra/launcher" and _is_missing(value, names):
            return f"hydra/launcher={value} is not installed: pip install -e '.[{LAUNCHERS[value]}]'"
        if not override.is_sweep_override() and isinstance(value, str) and value not in names:
            return f"{override.key_or_group}={value} is not allowed: {_one_of(value, names)}"
    try:
        base = compose(config_name, overrides=[o.input_line for o in chosen if not o.is_sweep_override()])
    except (HydraException, OmegaConfBaseException):
        return first_line(error)
    known = list(_keys(base))
    for override in parsed:
        key = override.key_or_group
        if key in groups or key in known or override.is_add() or key.startswith("hydra"):
            continue
        return f"{key}={override.value()} is not allowed: there is no such key; {_suggest(key, known)}"
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


def _is_missing(launcher: str, names: list[str]) -> bool:
    """Whether a launcher is one that a package would bring that is not there."""
    return launcher in LAUNCHERS and {"cluster": "submitit_slurm"}.get(launcher, launcher) not in names


def _suggest(key: str, known: list[str]) -> str:
    leaf = key.rsplit(".", 1)[-1]
    if leaf in FOREIGN_NAMES and FOREIGN_NAMES[leaf] in known:
        return f"here it is called {FOREIGN_NAMES[leaf]}"
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    same_leaf = [name for name in known if name.rsplit(".", 1)[-1] == leaf]
    if same_leaf or close:
        return f"did you mean {(same_leaf or close)[0]}?"
    siblings = [name for name in known if name.startswith(key.split(".")[0] + ".")]
    siblings = siblings or [name for name in known if "." not in name]
    return "its keys: " + ", ".join(siblings)


def _one_of(value: str, names: list[str]) -> str:
    close = difflib.get_close_matches(value, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"one of {', '.join(names)}{hint}"


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in config:
        yield f"{prefix}{name}"
        node = config._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none():
            yield from _keys(node, f"{prefix}{name}.")
