"""Checks the folder of a diffusers pipeline before it is loaded: whether each network is there, whole, and of a known size.

This module has no heavy imports, because the check of the configuration uses it too.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distdiff.generator.kinds import STABLE_DIFFUSION_3
from distdiff.generator.weight_files import damage, quantised
from distdiff.wording import printable, some

INDEX = "model_index.json"
NETWORKS = ("unet", "transformer")
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # parts of some pipelines that make no image
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
# A tokenizer whose vocabulary is not there is built without a word, and knows none.
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",), ("vocab.txt",))
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "transformer": ("SD3Transformer2DModel",),
    "vae": ("AutoencoderKL", "AsymmetricAutoencoderKL"),
}
WITH_WEIGHTS = (*NETWORKS, "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_)?model(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?(?:\.(?P<late>\w+))?\.safetensors"
)


def fault(folder: Path, variant: str | None, without: Iterable[str] = ()) -> str | None:
    """What keeps a pipeline from being loaded, with the part and the file, or None if nothing obvious does.

    `variant` is the variant of the weight files to load, and `without` has the parts that are not loaded. A part that is
    stored without the variant is loaded without it, as in diffusers.
    """
    if reason := _index_fault(folder):
        return f"{INDEX}: {reason}"
    for part in classes(folder):
        if part not in without and (reason := _absent(folder / part)):
            return reason
    for part in with_weights(folder, without):
        names = sorted(path.name for path in (folder / part).glob("*") if path.is_file())
        found = _by_variant(names)
        weights = found.get(variant) or found.get(None)
        if not weights:
            if found:
                return f"{part} has only weights of the {_variants(found)}"
            pickles = [name for name in names if name.endswith((".bin", ".ckpt", ".pt"))]
            only = f", only {some(pickles)}, which could run code" if pickles else ""
            return f"its part {part} has no .safetensors weights{only}"
        for name in weights:
            if reason := damage(folder / part / name) or quantised(folder / part / name):
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
    # What is no number is named when the pipeline is loaded.
    return channels_fault(inputs, channels) if isinstance(inputs, int) and isinstance(channels, int) else None


def channels_fault(inputs: int, channels: int) -> str | None:
    if inputs == channels:
        return None
    kind = "made for inpainting, and is " if inputs == 2 * channels + 1 else ""
    return f"its network takes {inputs} channels, not the autoencoder's {channels}; it is {kind}no plain text-to-image model"


def classes(folder: Path) -> dict[str, tuple[str, str]]:
    """Each part that the pipeline's text-to-image class takes -> (the library, the class) that the index names."""
    index = read_json(folder / INDEX)
    entries = {part: index.get(part) for part in (*WITH_WEIGHTS, *TOKENIZERS, "scheduler")}
    return {part: tuple(entry) for part, entry in entries.items() if isinstance(entry, list) and None not in entry}


def with_weights(folder: Path, without: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The parts among `classes` that have weights and are to be loaded."""
    return {part: name for part, name in classes(folder).items() if part in WITH_WEIGHTS and part not in without}


def has_variant(part: Path, variant: str | None) -> bool:
    """Whether a part is stored as this variant of the weight files."""
    return variant is not None and variant in _by_variant(path.name for path in part.glob("*"))


def _index_fault(folder: Path) -> str | None:
    """What is wrong with the index, which names the class of each part."""
    index = read_json(folder / INDEX)
    for part in (*WITH_WEIGHTS, *TOKENIZERS, "scheduler", *UNUSED):
        entry = index.get(part, [None, None])
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(one, str | None) for one in entry)):
            return f"{part}={printable(json.dumps(entry))} is not allowed: the library and the class, as a list of two words"
        if part in CLASSES and entry[1] not in (None, *CLASSES[part]):
            return f"its {part} is of the class {printable(entry[1])}, and that of a text-to-image model is {CLASSES[part][0]}"
    network = "transformer" if str(index.get("_class_name")).startswith(STABLE_DIFFUSION_3.family) else "unet"
    named = classes(folder)
    absent = [part for part in (network, "vae", "text_encoder", "tokenizer", "scheduler") if part not in named]
    return f"it names no {' and no '.join(absent)}, so it is no whole text-to-image model" if absent else None


def _absent(part: Path) -> str | None:
    """Which file of a part is not there; its weights are checked elsewhere."""
    names = {path.name for path in part.glob("*") if path.is_file()}
    if not names:
        return f"its part {part.name} is missing"
    if part.name in TOKENIZERS:
        if not any(names.issuperset(files) for files in VOCABULARIES):
            return f"its part {part.name} has no vocabulary (tokenizer.json, or vocab.json and merges.txt)"
        return None
    config = "scheduler_config.json" if part.name == "scheduler" else "config.json"
    return None if config in names else f"its part {part.name} has no {config}"


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
    return read_json(part / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if there is none. What is wrong with a file, its loader says."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
