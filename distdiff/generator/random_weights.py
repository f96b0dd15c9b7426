"""Pipelines of a known architecture with random weights, to measure time and memory and for dry runs.

The images are noise, but the networks do the same work as trained ones. A weight is a hash of its name and place, so it
is the same on every device, and in every precision up to rounding: unlike numbers of a device's own generator, the
architecture's name identifies all weights.
"""

import json
import zlib
from pathlib import Path

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import DiffusionPipeline
from torch import nn
from transformers import CLIPTokenizer

from distdiff.generator.kinds import Kind
from distdiff.generator.location import ASSETS
from distdiff.generator.parts import INDEX

RECIPE = 1  # raise when the weights or the tokenizer change, since both identify expansions
TOKENIZER, MAX_TOKENS = ASSETS / "tiny_digits" / "tokenizer", 77
CHUNK = 2**19  # numbers that are made at a time, so that they stay in a processor's cache


def random_pipeline(folder: Path, kind: Kind, dtype: torch.dtype, device: torch.device | str) -> DiffusionPipeline:
    """The pipeline that a folder without weights describes; its networks are made on `device` in `dtype`."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    del index["_class_name"]
    parts = {
        name: _part(folder / name, *entry, torch.device(device), dtype) if isinstance(entry, list) else entry
        for name, entry in index.items()
    }
    return getattr(diffusers, kind.pipeline)(**parts)


def _part(folder: Path, library: str | None, name: str | None, device: torch.device, dtype: torch.dtype) -> object:
    if name is None:  # left out, as a safety checker is
        return None
    if name == "CLIPTokenizer":  # reads any text: it knows all bytes
        return CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=MAX_TOKENS)
    if library == "transformers":
        kind = getattr(transformers, name)
        with init_empty_weights(include_buffers=False):
            network = kind(kind.config_class.from_json_file(folder / "config.json"))
    else:
        kind = getattr(diffusers, name)
        with init_empty_weights(include_buffers=False):
            network = kind.from_config(kind.load_config(folder))
        if not isinstance(network, nn.Module):  # the scheduler
            return network
    fill(network, folder.name, device, dtype)
    return network.to(device).eval()


def fill(network: nn.Module, name: str, device: torch.device, dtype: torch.dtype) -> None:
    """Gives random weights to a network whose parameters are on the meta device; `name` is its name in the pipeline.

    As in PyTorch, weights of linear and convolutional layers are uniform in ±1/√n, where n is the number of inputs of an
    output. Normalising layers have scale 1 and shift 0, and biases are zero.
    """
    for path, parameter in list(network.named_parameters()):
        owner, _, own = path.rpartition(".")
        made = torch.zeros(parameter.shape, dtype=dtype, device=device)
        if parameter.dim() > 1:
            _draw(made, zlib.crc32(f"{name}.{path}".encode()), parameter.shape[1:].numel() ** -0.5)
        elif own == "weight":
            made.fill_(1)
        setattr(network.get_submodule(owner), own, nn.Parameter(made, requires_grad=False))


def _draw(weight: torch.Tensor, stream: int, bound: float) -> None:
    """Fills `weight` with numbers in [-bound, bound) that depend on their place and on `stream` alone."""
    if weight.is_meta:  # which has a shape and no numbers
        return
    flat = weight.view(-1)
    for start in range(0, len(flat), CHUNK):
        count = min(CHUNK, len(flat) - start)
        place = torch.arange(count, dtype=torch.int32, device=weight.device).add_(_int32(stream + start))
        # The upper 24 bits become a number in [-1, 1): float32 holds it exactly on every device.
        flat[start : start + count] = (_hashed(place) >> 8).float().mul_(bound / 2**23)


def _hashed(numbers: torch.Tensor) -> torch.Tensor:
    """A hash of each int32 number, in place: lowbias32 (Wellons, 2018, nullprogram.com/blog/2018/07/31).

    Products wrap around, as in unsigned arithmetic. Shifts of negative numbers bring in ones, which are masked out.
    """
    numbers ^= (numbers >> 16) & 0xFFFF
    numbers *= 0x7FEB352D
    numbers ^= (numbers >> 15) & 0x1FFFF
    numbers *= _int32(0x846CA68B)
    numbers ^= (numbers >> 16) & 0xFFFF
    return numbers


def _int32(number: int) -> int:
    """The signed integer of 32 bits that equals `number` modulo 2³²."""
    return (number + 2**31) % 2**32 - 2**31
