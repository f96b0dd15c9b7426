"""Checks the folder of a diffusers pipeline before it is loaded: whether each network is there, whole, and of a known size.

This module has no heavy imports, because the check of the configuration uses it too.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from distdiff.generator.kinds import STABLE_DIFFUSION_3
from distdiff.placeholders import placeholder
from distdiff.texts import UnreadableFile, json_fault, read_json
from distdiff.weight_files import damage, file_names, quantised, shards_fault
from distdiff.wording import printable, some

INDEX = "model_index.json"
DIFFUSERS = "diffusers"
NETWORKS = ("unet", "transformer")
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # parts of some pipelines that make no image
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "transformer": ("SD3Transformer2DModel",),
    "vae": ("AutoencoderKL", "AsymmetricAutoencoderKL"),
}
WITH_WEIGHTS = (*NETWORKS, "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_)?model(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?(?:\.(?P<late>\w+))?\.safetensors"
)


def fault(folder: Path, variant: str | None = None, without: Iterable[str] = (), weights: bool = True) -> str | None:
    """What keeps a pipeline from being loaded, with the part and the file, or None if nothing obvious does.

    `variant` is the variant of the weight files to load, and `without` has the parts that are not loaded. A part that is
    stored without the variant is loaded without it, as in diffusers. If `weights` is False, only the files that describe
    the parts are looked at.
    """
    if reason := json_fault(folder / INDEX, "_class_name") or _index_fault(folder):
        return f"{INDEX}: {reason}"
    for part, (library, kind) in classes(folder).items():
        if part in without:
            continue
        names = file_names(folder / part)
        if not names and (weights or part not in WITH_WEIGHTS):
            return f"its part {part} is missing"
        if reason := description_fault(folder / part, library, kind) if names else None:
            return f"{part}/{reason}"
        if weights and part in WITH_WEIGHTS and (reason := weights_fault(folder / part, variant)):
            return f"its part {part} {reason}" if reason.startswith("has ") else f"{part}/{reason}"
    return None


def description_fault(folder: Path, library: str = DIFFUSERS, kind: str = "") -> str | None:
    """Which of the files that describe one part of a pipeline cannot be used, and why; None if all can.

    `library` and `kind` are the part's library and class.
    """
    names = file_names(folder)
    for name in names:
        if name.endswith(".json") and (reason := json_fault(folder / name)):
            return f"{name}: {reason}"
        if name.endswith((".txt", ".model")) and (reason := placeholder(folder / name)):
            return f"{name}: {reason}"
    wanted = _wanted(library, kind, names)
    for name, entry in wanted.items():
        if name not in names:
            return f"{name}: there is no such file"
        if reason := json_fault(folder / name, entry):
            return f"{name}: {reason}"
    return None


def weights_fault(folder: Path, variant: str | None = None) -> str | None:
    """Why the weights of one part cannot be loaded: the file and the reason, or "has …" if files are missing."""
    names = file_names(folder)
    found = _by_variant(names)
    weights = found.get(variant) or found.get(None)
    if not weights:
        if found:
            return f"has only weights of the {_variants(found)}"
        pickles = [name for name in names if name.endswith((".bin", ".ckpt", ".pt"))]
        only = f", only {some(pickles)}, which could run code" if pickles else ""
        return f"has no .safetensors weights{only}"
    for name in weights:
        if reason := damage(folder / name) or quantised(folder / name):
            return f"{name}: {reason}"
    return shards_fault(folder, weights, names)


def _wanted(library: str, kind: str, names: Sequence[str]) -> dict[str, str]:
    """The files that a part needs besides its weights, each with an entry that tells it from any other file.

    A tokenizer whose vocabulary is not there would be built without a message, and know no words.
    """
    if library == DIFFUSERS:
        return {"scheduler_config.json" if "Scheduler" in kind else "config.json": "_class_name"}
    if library == "transformers" and "Tokenizer" in kind:
        if "tokenizer.json" in names:
            return {"tokenizer.json": "model"}
        if "vocab.json" in names:
            return {"vocab.json": None, "merges.txt": None}
        has_words = any(name.endswith(".model") or name == "vocab.txt" for name in names)
        return {} if has_words else {"tokenizer.json": "model"}
    return {"config.json": "model_type"} if library == "transformers" and "Model" in kind else {}


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
    index = content_of(folder / INDEX)
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
    index = content_of(folder / INDEX)
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
    return content_of(part / "config.json")


def content_of(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if it cannot be read, which `fault` says."""
    try:
        return read_json(path)
    except UnreadableFile:
        return {}
