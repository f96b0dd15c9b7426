"""Loads the parts of a pipeline one by one, so that each tensor that a part lacks or has too many is known.

diffusers and transformers leave a missing tensor empty or fill it with random numbers, and say so in their log at most.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError

from distdiff.console.output import console
from distdiff.errors import UserError, first_line
from distdiff.generator.parts import has_variant, with_weights
from distdiff.hub import LOADING_ERRORS
from distdiff.wording import printable, some

LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


def load_parts(
    folder: Path, model: str, variant: str | None, without: Iterable[str], dtype: torch.dtype
) -> dict[str, torch.nn.Module]:
    """The parts with weights of a pipeline's folder, as its `from_pretrained` loads them.

    Says which tensors have no place in a part. Raises `UserError`, which names the pipeline `model` and the part, if a part
    cannot be loaded or lacks a tensor.
    """
    parts = {}
    for part, (library, name) in with_weights(folder, without).items():
        owner = getattr(LIBRARIES[library], name)
        options: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True, "dtype": dtype}
        if library == "transformers":
            options["ignore_mismatched_sizes"] = True  # reported below, with the tensor's name
        if has_variant(folder / part, variant):
            options["variant"] = variant
        try:
            loaded, found = owner.from_pretrained(folder / part, **options)
        except (*LOADING_ERRORS, ArithmeticError, IndexError, ImportError, StrictDataclassError) as error:
            reason = first_line(error).partition(". If you want")[0]
            raise UserError(f"generator.model={model} is no complete pipeline: {part}: {reason}") from error
        if reason := _lacking(loaded, found):
            raise UserError(f"generator.model={model} is no complete pipeline: {part}: {reason}")
        if left := sorted(found["unexpected_keys"]):
            console.print(
                f"generator.model={model}: {len(left)} of the {len(left) + len(loaded.state_dict())} tensors in {part} have "
                f"no place in the {name} that its config.json describes, and are left out: {some(left)}"
            )
        parts[part] = loaded
    return parts


def _lacking(loaded: torch.nn.Module, found: Mapping[str, Any]) -> str | None:
    if odd := sorted(found["mismatched_keys"]):
        name, given, wanted = odd[0]
        return f"{printable(name)} is {list(given)} in the file, and {list(wanted)} by its config.json"
    if absent := sorted(found["missing_keys"]):
        return (
            f"{len(absent)} of the {len(loaded.state_dict())} tensors that its config.json describes are not in its files: "
            f"{some(absent)}"
        )
    return None
