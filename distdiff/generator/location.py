"""Where a generator is, and what it says it is: one of ours, a folder, a checkpoint file, or the Hugging Face hub.

No heavy imports: validation asks before any model loads.
"""

import json
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
from distdiff.hub import local_path

ASSETS = Path(__file__).resolve().parents[1] / "assets"
INDEX = "model_index.json"
CHECKPOINT_SUFFIX = ".safetensors"
# A tensor whose presence tells what a single-file checkpoint holds (the original repositories' names).
CHECKPOINT_MARKS = {
    "model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight": STABLE_DIFFUSION_3,
    "conditioner.embedders.1.model.ln_final.weight": STABLE_DIFFUSION_XL,
    "model.diffusion_model.input_blocks.0.0.weight": STABLE_DIFFUSION,
}


def model_path(model: str, key: str = "generator.model") -> Path | None:
    """The local folder or file that `key` names (`asset:<name>` is one of ours), or None for a hub id.

    Raises `UserError` for a path that does not exist.
    """
    if model.startswith("asset:"):
        path = ASSETS / model.removeprefix("asset:")
        if not path.is_dir():
            raise UserError(f"{key}={model} is not allowed: there is no such asset")
        return path
    return local_path(key, model)


def local_kind(model: str) -> Kind | None:
    """What a local model is, or None for a hub id; raises `UserError` for what is no supported pipeline or checkpoint."""
    path = model_path(model)
    if path is None:
        return None
    if path.is_file():
        return _checkpoint_kind(path, model)
    if not (path / INDEX).is_file():
        raise UserError(f"generator.model={model} is no diffusers pipeline: it has no {INDEX}")
    try:
        pipeline_class = json.loads((path / INDEX).read_text(encoding="utf-8"))["_class_name"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"generator.model={model} is no diffusers pipeline: its {INDEX} cannot be read") from None
    return kind_of(pipeline_class, model)


def split_scale(entry: str) -> tuple[str, float]:
    """`path:scale` to both, scale 1 where none is given.

    >>> split_scale("styles/ink.safetensors:0.6"), split_scale("user/lora")
    (('styles/ink.safetensors', 0.6), ('user/lora', 1.0))
    """
    path, colon, scale = entry.rpartition(":")
    try:
        return (path, float(scale)) if colon else (entry, 1.0)
    except ValueError:
        return entry, 1.0


def _checkpoint_kind(path: Path, model: str) -> Kind:
    """Tells a checkpoint by the names in its header, a length and JSON before the tensors."""
    unreadable = UserError(
        f"generator.model={model} is not allowed: a folder, a hub id or one {CHECKPOINT_SUFFIX} file"
    )
    if path.suffix != CHECKPOINT_SUFFIX:
        raise unreadable
    with open(path, "rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            names = json.loads(file.read(min(length, path.stat().st_size)))
        except (struct.error, ValueError):
            raise unreadable from None
    for mark, kind in CHECKPOINT_MARKS.items():
        if mark in names:
            return kind
    raise UserError(f"generator.model={model} is not allowed: it is no Stable Diffusion 1, 2, XL or 3 checkpoint")
