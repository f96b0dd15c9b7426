"""Checks the folder of a diffusers pipeline before it is loaded: whether each network is there, whole, and of a known size.

This module has no heavy imports, because the check of the configuration uses it too.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distdiff.generator.weight_files import damage
from distdiff.wording import some

INDEX = "model_index.json"
NETWORKS = ("unet", "transformer")
WITH_WEIGHTS = (*NETWORKS, "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_)?model(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?(?:\.(?P<late>\w+))?\.safetensors"
)


def fault(folder: Path, variant: str | None, without: Iterable[str] = ()) -> str | None:
    """What keeps a pipeline from being loaded, with the part and the file, or None if nothing obvious does.

    `variant` is the variant of the weight files to load, and `without` has the parts that are not loaded. A part that is
    stored without the variant is loaded without it, as in diffusers.
    """
    for part in _parts(folder, without):
        names = sorted(path.name for path in (folder / part).glob("*") if path.is_file())
        if not names:
            return f"its part {part} is missing"
        found = _by_variant(names)
        weights = found.get(variant) or found.get(None)
        if not weights:
            if found:
                return f"{part} has only weights of the {_variants(found)}"
            pickles = [name for name in names if name.endswith((".bin", ".ckpt", ".pt"))]
            only = f", only {some(pickles)}, which could run code" if pickles else ""
            return f"its part {part} has no .safetensors weights{only}"
        for name in weights:
            if reason := damage(folder / part / name):
                return f"{part}/{name}: {reason}"
    return None


def variant_hint(files: Iterable[str]) -> str | None:
    """The reason if a pipeline's weights are there as a variant alone; `files` has the paths of a repository's files."""
    found: dict[str | None, list[str]] = {}
    for file in files:
        part, _, name = file.rpartition("/")
        if part in WITH_WEIGHTS:
            for variant, weights in _by_variant([name]).items():
                found.setdefault(variant, []).extend(weights)
    return f"it has only weights of the {_variants(found)}" if found and None not in found else None


def odd_channels(folder: Path) -> str | None:
    """The reason if the network takes other channels than the autoencoder's latents, as one for inpainting does."""
    network = next((config for name in NETWORKS if (config := _config(folder / name))), {})
    inputs, channels = network.get("in_channels"), _config(folder / "vae").get("latent_channels")
    return channels_fault(inputs, channels) if None not in (inputs, channels) else None


def channels_fault(inputs: int, channels: int) -> str | None:
    if inputs == channels:
        return None
    kind = "made for inpainting, and is " if inputs == 2 * channels + 1 else ""
    return f"its network takes {inputs} channels, not the autoencoder's {channels}; it is {kind}no plain text-to-image model"


def _parts(folder: Path, without: Iterable[str]) -> Iterator[str]:
    index = _json(folder / INDEX)
    for part in WITH_WEIGHTS:
        entry = index.get(part)
        if isinstance(entry, list) and None not in entry and part not in without:
            yield part


def _by_variant(names: Iterable[str]) -> dict[str | None, list[str]]:
    found: dict[str | None, list[str]] = {}
    for name in names:
        if match := WEIGHTS.fullmatch(name):
            found.setdefault(match["variant"] or match["late"], []).append(name)
    return found


def _variants(found: dict[str | None, list[str]]) -> str:
    names = sorted(filter(None, found))
    plural = "variants" if len(names) > 1 else "variant"
    return f"{plural} {', '.join(names)}: add generator.variant={names[0]}"


def _config(part: Path) -> dict[str, Any]:
    return _json(part / "config.json")


def _json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if there is none. What is wrong with a file, its loader says."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
