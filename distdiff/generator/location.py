"""Finds where a generator is stored and of what kind it is.

A generator is one of the package's assets, a folder, a checkpoint file, a repository of the Hugging Face hub, or an
architecture that gets random weights. This module has no heavy imports, because the check of the configuration uses it
before any model is loaded.
"""

import json
import math
import os
import struct
from pathlib import Path

from distdiff.errors import UserError
from distdiff.generator.kinds import (
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_3,
    STABLE_DIFFUSION_XL,
    Kind,
    kind_of,
)
from distdiff.generator.parts import INDEX, content_of, odd_channels
from distdiff.hub import local_path
from distdiff.texts import json_fault, read_json
from distdiff.weight_files import damage
from distdiff.wording import printable, some

ASSETS = Path(__file__).resolve().parents[1] / "assets"
ARCHITECTURES = ASSETS / "architectures"  # folders of pipelines without weights
RANDOM = "random:"
CHECKPOINT_SUFFIX = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
DEEPEST = 3  # folders below the one that was given, in which a pipeline is looked for
FIRST_LAYER, LATENT_CHANNELS = "model.diffusion_model.input_blocks.0.0.weight", 4
REFINER_MARK = "conditioner.embedders.0.model.ln_final.weight"
# The first of these tensors that a single-file checkpoint has tells the checkpoint's kind. The names are those of the
# original repositories.
CHECKPOINT_MARKS = {
    "model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight": STABLE_DIFFUSION_3,
    "conditioner.embedders.1.model.ln_final.weight": STABLE_DIFFUSION_XL,
    FIRST_LAYER: STABLE_DIFFUSION,
}


def model_path(model: str, key: str = "generator.model") -> Path | None:
    """The local folder or file that `model` names, or None for a hub id.

    `asset:<name>` names one of the package's assets, and `random:<name>` one of the package's architectures, which is a
    folder without weights. Raises a `UserError` that names `key` for a path that does not exist.
    """
    if model.startswith(RANDOM):
        return ARCHITECTURES / _architecture(model, key)
    if model.startswith("asset:"):
        path = ASSETS / model.removeprefix("asset:")
        if path.parent != ASSETS or not path.is_dir():
            raise UserError(f"{key}={model} is not allowed: there is no such asset")
        return path
    return local_path(key, model)


def local_kind(model: str) -> Kind | None:
    """The kind of a local model, or None for a hub id; raises `UserError` for an unsupported pipeline or checkpoint."""
    path = model_path(model)
    if path is None:
        return None
    if path.is_file():
        return _checkpoint_kind(path, model)
    if not os.path.lexists(path / INDEX):
        raise UserError(f"generator.model={model} is no diffusers pipeline: it has no {INDEX}{_hint(path)}")
    if reason := json_fault(path / INDEX, "_class_name"):
        raise UserError(f"generator.model={model} is no diffusers pipeline: {INDEX}: {reason}")
    kind = kind_of(str(read_json(path / INDEX)["_class_name"]), model)
    if reason := odd_channels(path):
        raise UserError(f"generator.model={model} is not allowed: {reason}")
    return kind


def _hint(folder: Path) -> str:
    """What a folder without an index is, if that is plain: too high, too low, another model, or a checkpoint's folder."""
    if (folder.absolute().parent / INDEX).is_file():
        return f"; it is one part of the pipeline {folder.absolute().parent}, which is what to give"
    for depth in range(1, DEEPEST + 1):
        below = sorted(path.parent for path in folder.glob("*/" * depth + INDEX))
        if below:
            return f"; {'a pipeline is' if len(below) == 1 else 'pipelines are'} in {some(below)}"
    if name := content_of(folder / "config.json").get("_class_name"):
        return f"; it is a {printable(str(name))} alone, not a whole pipeline"
    files = sorted(folder.glob(f"*{CHECKPOINT_SUFFIX}"))
    return f"; to use a checkpoint, give the file: {some(files)}" if files else ""


def architectures() -> list[str]:
    """The names of the architectures that can get random weights."""
    return sorted(path.parent.name for path in ARCHITECTURES.glob(f"*/{INDEX}"))


def _architecture(model: str, key: str) -> str:
    name, known = model.removeprefix(RANDOM), architectures()
    if name not in known:
        raise UserError(
            f"{key}={model} is not allowed: there is no such architecture; one of {', '.join(RANDOM + each for each in known)}"
        )
    return name


def split_scale(entry: str) -> tuple[str, float]:
    """Splits `path:scale`; the scale is 1 if none is given.

    >>> split_scale("styles/ink.safetensors:0.6"), split_scale("user/lora")
    (('styles/ink.safetensors', 0.6), ('user/lora', 1.0))
    """
    path, colon, scale = entry.rpartition(":")
    try:
        number = float(scale) if colon and "_" not in scale else None
    except ValueError:
        number = None
    if number is None:
        # A drive, an address and an asset have a colon too, and so may a file.
        is_scale = colon and not {"/", "\\"} & {*scale} and len(path) > 1 and path != "asset"
        if is_scale and not Path(entry).expanduser().exists():
            raise UserError(f"generator.lora={entry} is not allowed: a number behind the colon")
        return entry, 1.0
    if not math.isfinite(number):
        raise UserError(f"generator.lora={entry} is not allowed: a finite scale behind the colon")
    return path, number


def _checkpoint_kind(path: Path, model: str) -> Kind:
    """The kind of a checkpoint, recognised by the tensor names in the file's header.

    The file begins with 8 bytes that hold the header's length. The header, in JSON, and the tensors follow.
    """
    unreadable = UserError(
        f"generator.model={model} is not allowed: a folder, a hub id or one {CHECKPOINT_SUFFIX} file"
    )
    if path.suffix in PICKLES:
        raise UserError(f"{unreadable}; a {path.suffix} file is a pickle, which could run code")
    if path.suffix != CHECKPOINT_SUFFIX:
        raise unreadable
    if reason := damage(path):
        raise UserError(f"generator.model={model} cannot be read: {reason}")
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        names = json.loads(file.read(length))
    channels = names.get(FIRST_LAYER, {}).get("shape", [0, LATENT_CHANNELS])[1]
    if channels == LATENT_CHANNELS and REFINER_MARK not in names:  # inpainting and refining are other tasks
        for mark, kind in CHECKPOINT_MARKS.items():
            if mark in names:
                return kind
    folder = path.absolute().parent.parent
    part = f"; it is one part of the pipeline {folder}, which is what to give" if (folder / INDEX).is_file() else ""
    raise UserError(
        f"generator.model={model} is not allowed: it is no text-to-image checkpoint of Stable Diffusion 1, 2, XL or 3{part}"
    )
