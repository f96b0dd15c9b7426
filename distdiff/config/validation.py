"""Checks a composed configuration against the schema, in one line a mistake, before any model loads."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distdiff.caching.fingerprint import plain
from distdiff.config.composition import explain_type, load_option
from distdiff.config.schema import COMMANDS, RESERVED_BY_HYDRA
from distdiff.data.naming import default_name
from distdiff.data.prompts import check_names
from distdiff.data.reading.background import colour
from distdiff.encoders.config import check as check_encoder
from distdiff.errors import UserError
from distdiff.generator.kinds import AUTO, LATENT_CONSISTENCY, Kind
from distdiff.generator.location import local_kind, model_path, split_scale
from distdiff.guidance.schedule import StepSchedule
from distdiff.ranks.arrangement import count_devices
from distdiff.store.filtering import RowFilter
from distdiff.study.methods import check_methods

# YAML 1.1 has no octal surprise here, but `guidance.rho=nan` is a float to OmegaConf: refuse it by name.
NOT_NUMBERS = "a finite number"
EXPANDED = "distdiff.store.dataset.load"  # what reads dataset=expanded


def validate(config: DictConfig) -> DictConfig:
    """Returns `config`, resolved and without Hydra's own part; raises `UserError` naming key, value and what is allowed."""
    schema = COMMANDS[config.command]
    typed = OmegaConf.create({key: config._get_node(key) for key in config if key != "hydra"})
    try:
        OmegaConf.resolve(typed)
    except OmegaConfBaseException as error:
        raise UserError(explain_type(error)) from None
    if "encoder" in typed:
        check_encoder(typed.encoder)
    check_values(schema, typed)
    check_directories(typed)
    if "dataset" in typed and "prompt_template" in typed.dataset and "{}" not in typed.dataset.prompt_template:
        raise UserError(
            f"dataset.prompt_template={typed.dataset.prompt_template!r} is not allowed: it needs {{}} where the class name goes"
        )
    if "dataset" in typed and typed.dataset.name is None:
        typed.dataset.name = default_name(typed.dataset)
    check_devices(typed.trainer, typed.command)
    if "dataset" in typed:
        check_names(typed.dataset)
        check_folds(typed.dataset.num_folds, typed.dataset.fold)
        colour(plain(typed.dataset.background))
    if "study" in typed:
        check_methods(typed.study.methods)
    if "guidance" in typed:
        kind = check_generator(typed.generator)
        if typed.encoder.name == "guide":
            named = {group: typed.encoder.guide[group] for group in ("classifier", "augmentation")}
            typed.options = {group: {name: load_option(group, name)} for group, name in named.items()}
            OmegaConf.resolve(typed)
        check_strengths(typed.expansion.strength)
        check_quality(typed.expansion.quality, typed.expansion.image_format)
        check_split(typed.expansion.split, typed.expansion.total_split, typed.command)
        counting = kind.counting if kind else generous_counting(typed.generator.scheduler)
        for strength in strengths_of(typed.expansion.strength):
            StepSchedule.of(
                typed.generator.num_steps, strength, typed.guidance.start_step, typed.guidance.period, counting
            )
    if "preview" in typed:
        check_preview(typed.preview, typed, counting)
    return typed


def warnings_about(config: DictConfig) -> Iterator[str]:
    """What a user may not have meant, though it is allowed; `config` is validated."""
    if "generator" in config and config.generator.draws not in (None, config.dataset.subject):
        name, draws = config.generator.model.rpartition(":")[2], config.generator.draws
        yield (
            f"generator={name} draws nothing but {draws}: choose another, such as generator=sd15, for dataset "
            f"{config.dataset.name}"
        )


def check_values(schema: type, config: DictConfig, prefix: str = "") -> None:
    """Raises `UserError` for a key that `schema` lacks, one without a value, and a value beyond what the key allows."""
    _refuse_strangers(schema, config, prefix)
    for key, value, limits in _constrained(schema, config, prefix):
        _check(key, value, limits)


def _refuse_strangers(schema: type, config: DictConfig, prefix: str = "") -> None:
    """`+key=value` can add what no schema knows; Hydra allows it, nothing here would read it."""
    known = {item.name: item.type for item in dataclasses.fields(schema)}
    for name in config:
        if name not in known:
            raise UserError(f"{prefix}{name} is not allowed: there is no such key; its place has {', '.join(known)}")
        if dataclasses.is_dataclass(known[name]):
            _refuse_strangers(known[name], config[name], f"{prefix}{name}.")


def _constrained(schema: type, config: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for item in dataclasses.fields(schema):
        key = f"{prefix}{item.name}"
        if OmegaConf.is_missing(config, item.name):
            if item.name != RESERVED_BY_HYDRA:
                raise UserError(f"{key} has no value: give one, {key}=...")
            continue
        value = config[item.name]
        if dataclasses.is_dataclass(item.type):
            yield from _constrained(item.type, value, f"{key}.")
        elif "words" in item.metadata:  # one value, of a type that OmegaConf cannot check
            yield key, value, dict(item.metadata)
        elif OmegaConf.is_dict(value):
            yield from ((f"{key}.{name}", part, dict(item.metadata)) for name, part in value.items())
        elif OmegaConf.is_list(value):
            yield from ((f"{key}[{index}]", part, dict(item.metadata)) for index, part in enumerate(value))
        elif value is not None:
            yield key, value, dict(item.metadata)


def _check(key: str, value: Any, limits: dict[str, Any]) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value} is not allowed: {describe(limits) or NOT_NUMBERS}")
    if "choices" in limits:
        if value not in limits["choices"]:
            raise UserError(f"{key}={value} is not allowed: {describe(limits)}")
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
        raise UserError(f"{key}={value} is not allowed: {describe(limits)}")


def describe(limits: dict[str, Any]) -> str:
    """The allowed values in words: `a number above 0, at most 1`."""
    if "choices" in limits:
        return "one of " + ", ".join(map(str, limits["choices"]))
    words = {"at_least": "at least", "above": "above", "at_most": "at most"}
    bounds = [f"{words[name]} {limits[name]}" for name in words if name in limits]
    if "words" in limits:
        return "an integer " + ", ".join(bounds) + "".join(f", or {word}" for word in limits["words"])
    return "a number " + ", ".join(bounds) if bounds else ""


def generous_counting(scheduler: str) -> str:
    """The most generous rule that a model on the hub may have; its own is asked once it is loaded."""
    return "all" if scheduler in (AUTO, *LATENT_CONSISTENCY.schedulers) else "ceil"


def check_generator(generator: DictConfig) -> Kind | None:
    """Refuses paths that do not exist, and a scheduler that makes no sense with a local model; returns that model's kind."""
    kind = local_kind(generator.model)
    if kind is not None:
        kind.check_scheduler(generator.scheduler)
    if generator.negative_prompt and generator.cfg_scale <= 1:
        raise UserError(
            f"generator.negative_prompt={generator.negative_prompt!r} is not allowed: it takes classifier-free guidance, "
            f"generator.cfg_scale above 1 (here {generator.cfg_scale:g})"
        )
    for entry in generator.lora:
        model_path(split_scale(entry)[0], "generator.lora")
    for entry in generator.textual_inversion:
        model_path(entry, "generator.textual_inversion")
    for key in ("guidance_decoder", "checkpoint_config"):
        if generator[key] is not None:
            model_path(generator[key], f"generator.{key}")
    return kind


def check_strengths(strength: Any) -> None:
    """Refuses a strength that is no number, no list of numbers and no `{low, high}` range."""
    form = "a number above 0 and at most 1, a list of them, or {low: , high: }"
    if OmegaConf.is_dict(strength):
        if set(strength) != {"low", "high"} or strength.low > strength.high:
            raise UserError(f"expansion.strength={strength} is not allowed: {form}, low at most high")
    elif OmegaConf.is_list(strength):
        if not strength:
            raise UserError(f"expansion.strength={strength} is not allowed: {form}")
    elif isinstance(strength, (str, bool)) or strength is None:
        raise UserError(f"expansion.strength={strength} is not allowed: {form}")


def check_directories(config: DictConfig) -> None:
    """Refuses conditions that are none or have nothing to choose from, and lists where one directory is read."""
    for group, key in (("dataset", "root"), ("train", "expanded"), ("measure", "expanded"), ("export", "source")):
        if group not in config:
            continue
        keys = config[group]
        name, condition, several = (
            f"{group}.{key}",
            RowFilter.of(f"{group}.where", keys.where),
            OmegaConf.is_list(keys[key]),
        )
        if several and (not keys[key] or not all(isinstance(item, (str, int, float)) for item in keys[key])):
            raise UserError(f"{name}={keys[key]} is not allowed: a directory, or a list of them, [a, b]")
        if OmegaConf.is_dict(keys[key]) or isinstance(keys[key], bool):
            raise UserError(f"{name}={keys[key]} is not allowed: a directory")
        if group == "dataset" and keys.get("_target_") != EXPANDED:
            if several:
                raise UserError(
                    f"dataset.root={keys.root} is not allowed: a list of directories is for dataset=expanded"
                )
            if condition:
                raise UserError(f"dataset.where={keys.where!r} is not allowed: it is for dataset=expanded")
        if condition and keys[key] is None:
            raise UserError(f"{group}.where={keys.where!r} is not allowed without {name}")
        if isinstance(keys[key], (int, float)):
            keys[key] = str(keys[key])  # a folder may be called 2024


def check_devices(trainer: DictConfig, command: str) -> None:
    """Refuses devices that are no number, no list of numbers and not `auto`, and several where a command takes one."""
    try:
        several = trainer.num_nodes > 1 or (str(trainer.devices) not in ("auto", "-1") and count_devices(trainer) > 1)
    except ValueError:
        several = None
    if several is None or str(trainer.devices) == "0":
        raise UserError(
            f"trainer.devices={trainer.devices} is not allowed: a number, a list of indices, [0, 2], or auto"
        )
    if several and command == "pretrain":
        raise UserError(f"trainer.devices={trainer.devices} is not allowed here: pretrain.py trains on one device")


def check_preview(preview: DictConfig, config: DictConfig, counting: str) -> None:
    """Refuses an empty list, and a strength that leaves too few steps."""
    for name in ("strengths", "rhos"):
        if preview[name] is not None and not preview[name]:
            raise UserError(f"preview.{name}=[] is not allowed: a list of numbers, or null")
    for strength in preview.strengths or ():
        try:
            StepSchedule.of(
                config.generator.num_steps, strength, config.guidance.start_step, config.guidance.period, counting
            )
        except UserError as error:
            raise UserError(str(error).replace("expansion.strength=", "preview.strengths=")) from None


def check_quality(quality: int | None, image_format: str) -> None:
    """Refuses a quality where there is nothing to choose."""
    if quality is not None and image_format == "png":
        raise UserError(
            f"expansion.quality={quality} is not allowed: png is lossless; it is for expansion.image_format=jpeg or webp"
        )


def check_split(split: int | None, total_split: int, command: str) -> None:
    """Refuses a part of an array job that there is not."""
    if split is None and total_split == 1:
        return
    if command != "expand":
        raise UserError(f"expansion.split={split} is not allowed here: splits are for experiments/expand.py")
    if split is None or split >= total_split:
        raise UserError(
            f"expansion.split={split} is not allowed: an integer from 0 to {total_split - 1}, one less than "
            f"expansion.total_split={total_split}"
        )


def check_folds(num_folds: int | None, fold: int) -> None:
    """Refuses a fold that there is not."""
    if num_folds is None and fold:
        raise UserError(f"dataset.fold={fold} is not allowed without dataset.num_folds, how many folds there are")
    if num_folds is not None and fold >= num_folds:
        raise UserError(
            f"dataset.fold={fold} is not allowed: an integer from 0 to {num_folds - 1}, one less than "
            f"dataset.num_folds={num_folds}"
        )


def strengths_of(strength: Any) -> list[float]:
    """The strengths that bound what a run will use: the number, the list's members, or both ends of the range."""
    if OmegaConf.is_dict(strength) or isinstance(strength, dict):
        return [strength["low"], strength["high"]]
    if OmegaConf.is_list(strength) or isinstance(strength, (list, tuple)):
        return list(strength)
    return [strength]
