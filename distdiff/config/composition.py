"""Composes a command's configuration as Hydra does, but answers a mistake in one line with the nearest right name."""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from distdiff.config.arguments import in_grammar, refuse_sweeps
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

# The keys of `dataset` that only some loaders read, as `reads` in their YAML files says; all others work with any.
LOADER_KEYS = {
    *("root", "where", "num_images", "split", "url", "counts", "check_counts", "image_column", "label_column"),
    *("hub_id", "hub_config", "hub_data_dir", "revision"),
    *(f"{split}_split" for split in ("train", "validation", "test")),
    *("validation_fraction", "test_fraction"),
}
ANY_DATA = ("imagefolder", "hub", "expanded", "parquet")  # options that read what the user has

LAUNCHERS = {"cluster": "slurm", "submitit_slurm": "slurm", "submitit_local": "slurm", "joblib": "joblib"}  # extras


def compose_jobs(config_name: str, overrides: list[str], multirun: bool) -> Iterator[DictConfig]:
    """Yields the configuration of every job that `overrides` ask for, one unless `multirun`.

    Raises `UserError` where Hydra cannot compose it.
    """
    overrides = in_grammar(overrides)
    parsed = _parse(overrides)
    if not multirun:
        refuse_sweeps(parsed, _list_keys(COMMANDS[config_name]))
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for job in _sweep(parsed) if multirun else [overrides]:
            try:
                config = compose(config_name, overrides=list(job))
            except (HydraException, OmegaConfBaseException) as error:
                raise UserError(_explain(config_name, _parse(list(job)), error)) from None
            if not any(override.key_or_group == "dataset" and override.is_sweep_override() for override in parsed):
                _refuse_unread(config, parsed, partial(_chosen, config_name, list(job)))
            yield config
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
    given = _parse([item for item in overrides if "=" in item and not item.startswith("-")])
    return {override.get_key_element() for override in given if override.is_sweep_override()}


def _parse(overrides: list[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(overrides)


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
    own = dict(_schema_keys(COMMANDS[config_name]))
    for override in parsed:
        key = override.key_or_group
        others = [f"{name}.py" for name, schema in COMMANDS.items() if key in dict(_schema_keys(schema))]
        if key not in own and others and not override.is_add():
            have = f"{' and '.join(filter(None, (', '.join(others[:-1]), others[-1])))} {'have' if others[1:] else 'has'} it"
            return f"{override.input_line} is not allowed: {config_name}.py has no {key}; {have}"
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
    same_leaf = [name for name in known if name.rsplit(".", 1)[-1] == leaf]
    # A group in common makes any two keys alike: their own names must be so too.
    alike = [name for name in known if difflib.SequenceMatcher(None, name.rsplit(".", 1)[-1], leaf).ratio() >= 0.6]
    close = difflib.get_close_matches(key, same_leaf or alike, n=1, cutoff=0 if same_leaf else 0.6)
    if close:
        return f"did you mean {close[0]}?"
    siblings = [name for name in known if name.startswith(key.split(".")[0] + ".")]
    siblings = siblings or [name for name in known if "." not in name]
    return "its keys: " + ", ".join(siblings)


def _schema_keys(schema: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    for item in dataclasses.fields(schema):
        yield f"{prefix}{item.name}", item
        if dataclasses.is_dataclass(item.type):
            yield from _schema_keys(item.type, f"{prefix}{item.name}.")


def _list_keys(schema: type) -> set[str]:
    """The keys whose value may be a list."""
    keys = _schema_keys(schema)
    return {
        key for key, item in keys if "list" in str(item.type) or (item.type is Any and "words" not in item.metadata)
    }


def _refuse_unread(config: DictConfig, parsed: list[Override], choice: Callable[[str], str]) -> None:
    """Refuses keys of the dataset that were typed and that its loader has no use for; `choice` is a group's option."""
    if "dataset" not in config or config.dataset.reads is None:
        return
    for override in parsed:
        group, _, name = override.key_or_group.partition(".")
        if group != "dataset" or name.partition(".")[0] not in LOADER_KEYS - set(config.dataset.reads):
            continue
        value = override.input_line.partition("=")[2]
        reads = {option: load_option("dataset", option).reads for option in options("dataset")}
        readers = [option for option in reads if name in (reads[option] or ())]
        readers = readers or [option for option in reads if reads[option] is None]
        general = [option for option in ANY_DATA if option in readers]
        if general:
            wanted = "expanded" if value.startswith("[") and "expanded" in general else general[0]
            hint = f"did you mean dataset={wanted} {override.input_line}?"
        else:
            hint = f"it is for dataset={', '.join(readers)}"
        raise UserError(
            f"{override.input_line} is not allowed: dataset={choice('dataset')} does not read {override.key_or_group}; {hint}"
        )


def _chosen(config_name: str, overrides: list[str], group: str) -> str:
    """The option of a group, by the command line, a preset or the command's own file."""
    choices = compose(config_name, overrides=overrides, return_hydra_config=True).hydra.runtime.choices
    return str(choices[group])


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
