"""Adds LoRA weights (Hu et al., 2022) to a pretrained pipeline, with diffusers' own loader."""

import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.utils import logging as diffusers_logging
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file

from distdiff.console.output import console
from distdiff.errors import UserError, first_line
from distdiff.generator.adapter_files import LORA, PEFT_CONFIG, HubPlace, adapter_place, fetch_adapter, here, is_of_peft
from distdiff.generator.location import split_scale
from distdiff.hub import hub_reason
from distdiff.texts import UnreadableFile, read_json
from distdiff.weight_files import damage, not_finite
from distdiff.wording import printable, some

OF_PEFT = "base_model.model."  # PEFT's `save_pretrained` puts this before each name
PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2")  # the parts of a pipeline that LoRAs change
# What comes behind the name of a layer in the names of its LoRA weights, in all formats that diffusers reads.
WEIGHT = re.compile(
    r"[._](lora_[AB]|lora[._](up|down)|lora_linear_layer\.(up|down)|up|down|lokr_\w+)(\.\w+)?\.?(weight|bias)?$"
)
MISMATCH = re.compile(  # how torch reports the first tensor of another shape
    r"size mismatch for (\S+?)(?:\.lora\d+)?\.weight: copying a param with shape torch\.Size\((\[.*?\])\) .*? "
    r"torch\.Size\((\[.*?\])\)"
)
OF_PAIR = re.compile(r"(lora_(?P<first>A|B)|\b(?P<second>up|down))\.weight$")


def add_loras(pipeline: DiffusionPipeline, entries: Sequence[str]) -> None:
    """Fuses the LoRA of each `path:scale` into the pipeline's weights, so that sampling takes as long as without LoRA.

    Weights that have no place in the pipeline are left out, and their number is printed. Raises `UserError` if a file
    cannot be read, or if none of its weights has a place.
    """
    if not entries:
        return
    names, scales = [], []
    for number, entry in enumerate(entries):
        path, scale = split_scale(entry)
        file = _file(entry, adapter_place(LORA, path))
        try:
            _add(pipeline, entry, file, f"lora{number}")
        except UserError:
            raise
        except Exception as error:  # diffusers and peft raise many types of errors for unfit files
            raise UserError(f"generator.lora={entry} cannot be loaded ({file.name}): {_reason(error)}") from error
        names.append(f"lora{number}")
        scales.append(scale)
    pipeline.set_adapters(names, scales)
    pipeline.fuse_lora(adapter_names=names)
    pipeline.unload_lora_weights()


def _reason(error: Exception) -> str:
    if match := MISMATCH.search(str(error)):
        layer, given, taken = match.groups()
        return f"it was made for a model of another width: {layer} is {given} in the file, and {taken} in this model"
    return first_line(error)


def _file(entry: str, place: Path | HubPlace) -> Path:
    if isinstance(place, Path):
        return place
    try:
        return fetch_adapter(LORA, place)
    except UserError:
        raise
    except Exception as error:  # the hub's client raises many types of errors
        raise UserError(f"generator.lora={entry} cannot be loaded: {here(place)}{hub_reason(error)}") from error


def _add(pipeline: DiffusionPipeline, entry: str, file: Path, adapter: str) -> None:
    """Adds the file's weights to the pipeline, and checks how many of them have a place in it."""
    if reason := damage(file):
        raise UserError(f"generator.lora={entry} cannot be loaded: {file.name}: {reason}")
    tensors = load_file(file)
    if reason := not_finite(tensors):
        raise UserError(f"generator.lora={entry} cannot be loaded: {file.name}: {printable(reason)}")
    renamed = _with_parts(pipeline, entry, file, tensors)
    layers = _layers(pipeline, renamed)
    if not layers:
        held = some(list(tensors)) or "nothing at all"
        raise UserError(f"generator.lora={entry} cannot be loaded: {file.name} has no LoRA weights; it has {held}")
    with _quiet():
        if renamed is tensors:  # loaded from the file, because its header may say how strongly the weights count
            options = {"weight_name": file.name, "use_safetensors": True}
            pipeline.load_lora_weights(str(file.parent), adapter_name=adapter, **options)
        else:
            pipeline.load_lora_weights(renamed, adapter_name=adapter)
    placed = sum(
        adapter in getattr(layer, name, ())
        for part in _parts(pipeline).values()
        for layer in part.modules()
        if isinstance(layer, BaseTunerLayer)
        for name in layer.adapter_layer_names[:1]
    )
    if not placed:
        raise UserError(
            f"generator.lora={entry} cannot be loaded: none of the {len(layers)} layers that {file.name} changes is in this "
            f"model (such as {layers[0]}); it was made for another kind of model"
        )
    if placed < len(layers):
        console.print(
            f"generator.lora={entry}: only {placed} of the {len(layers)} layers that {file.name} changes are in this model; "
            "its other weights are left out"
        )
    if any("dora_scale" in name for name in tensors):
        console.print(f"generator.lora={entry}: {file.name} is a DoRA; its scales are left out, as diffusers does")


def _layers(pipeline: DiffusionPipeline, tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The layers that LoRA weights change, by the names that diffusers gives to them.

    Raises `ValueError` for weights of another width than the pipeline's layer, and if a layer lacks one of its two
    matrices; the other one would then meet a random one.
    """
    state = pipeline.lora_state_dict(dict(tensors), **_unet_config(pipeline))
    state = state[0] if isinstance(state, tuple) else state
    parts = _parts(pipeline)
    modules = {f"{part}.{name}": own for part, module in parts.items() for name, own in module.named_modules()}
    found: dict[str, set[str]] = {}
    for name, tensor in state.items():
        if match := WEIGHT.search(name):
            layer = name[: match.start()]
            sides = found.setdefault(layer, set())
            if pair := OF_PAIR.search(name):
                side = {"A": "down", "B": "up"}.get(pair["first"], pair["second"])
                sides.add(side)
                _check_width(modules, layer, side, tensor)
    torn = [layer for layer, sides in found.items() if len(sides) == 1]
    if torn:
        raise ValueError(
            f"{len(torn)} of its {len(found)} layers have only one of their two matrices, such as {torn[0]}"
        )
    return list(found)


def _check_width(modules: Mapping[str, torch.nn.Module], layer: str, side: str, tensor: torch.Tensor) -> None:
    # Newer versions of transformers have no `text_model` in the names of a text encoder's layers.
    module = modules.get(layer) or modules.get(layer.replace(".text_model.", ".", 1))
    weight, dimension = getattr(module, "weight", None), 1 if side == "down" else 0
    if (
        weight is not None
        and weight.dim() > 1
        and tensor.dim() > 1
        and tensor.shape[dimension] != weight.shape[dimension]
    ):
        ends = "takes" if side == "down" else "gives"
        raise ValueError(
            f"it was made for a model of another width: {layer} {ends} {tensor.shape[dimension]} numbers in the file, and "
            f"{weight.shape[dimension]} in this model"
        )


def _unet_config(pipeline: DiffusionPipeline) -> dict[str, object]:
    """The option by which diffusers recognises the original names of Stable Diffusion XL's blocks."""
    return {"unet_config": pipeline.unet.config} if isinstance(pipeline, StableDiffusionXLLoraLoaderMixin) else {}


def _parts(pipeline: DiffusionPipeline) -> dict[str, torch.nn.Module]:
    found = {name: getattr(pipeline, name, None) for name in PARTS}
    return {name: part for name, part in found.items() if part is not None}


def _with_parts(
    pipeline: DiffusionPipeline, entry: str, file: Path, tensors: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The tensors, with the part of the pipeline in front of each name if the file does not say the part.

    PEFT and `get_peft_model_state_dict` write the names of one part's layers alone. Tensors whose part is known, or
    cannot be found, are returned as they are.
    """
    bare = {name.removeprefix(OF_PEFT): tensor for name, tensor in tensors.items()}
    found = next((part for part, module in _parts(pipeline).items() if _is_within(module, bare)), None)
    if found is None:
        return tensors
    if is_of_peft(file) or bare.keys() != tensors.keys():
        bare = _scaled(entry, file, bare)
    return {f"{found}.{name}": tensor for name, tensor in bare.items()}


def _is_within(module: torch.nn.Module, names: Mapping[str, torch.Tensor]) -> bool:
    """Whether most of the LoRA weights `names` are named after layers of `module`."""
    layers = {name for name, _ in module.named_modules()}
    known = 0
    for name in names:
        match = WEIGHT.search(name)
        known += match is not None and name[: match.start()].partition(".processor")[0] in layers
    return known > len(names) / 2


def _scaled(entry: str, file: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a file by PEFT, multiplied by the scale that the configuration beside it gives to each layer."""
    given = f"generator.lora={entry} cannot be loaded: "
    if not os.path.lexists(file.with_name(PEFT_CONFIG)):
        raise UserError(f"{given}{file.name} needs {PEFT_CONFIG} beside it, which says how strongly it counts")
    try:
        config = read_json(file.with_name(PEFT_CONFIG))
        kind, alpha, ranked = config.get("peft_type", "LORA"), config["lora_alpha"], config.get("use_rslora", False)
        alphas, others = config.get("alpha_pattern") or {}, config.get("use_dora", False)
        if kind != "LORA" or others:
            raise UserError(
                f"{given}{PEFT_CONFIG} describes {'DoRA' if others else kind}, which is not supported; only LoRA is"
            )
        scaled = {}
        for name, tensor in tensors.items():
            if match := re.search(r"\.lora_B\.weight$", name):
                layer_alpha = alphas.get(get_pattern_key(alphas.keys(), name[: match.start()]), alpha)
                rank = tensor.shape[1]
                tensor = tensor * (layer_alpha / (math.sqrt(rank) if ranked else rank))
            scaled[name] = tensor
    except UnreadableFile as error:
        raise UserError(f"{given}{PEFT_CONFIG}: {error.reason}") from None
    except KeyError as error:
        raise UserError(f"{given}{PEFT_CONFIG}: it has no {error}") from None
    except (ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"{given}{PEFT_CONFIG} cannot be used ({first_line(error)})") from None
    return scaled


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside the block, diffusers writes nothing to the console: it lists each tensor of an error that it raises."""
    before = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(before)
