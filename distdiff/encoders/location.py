"""Finds where an encoder's weights are stored.

This module has no heavy imports, because the check of the configuration uses it before anything is loaded.
"""

import os
import re
from pathlib import Path

from distdiff.errors import UserError
from distdiff.hub import local_path
from distdiff.placeholders import absent
from distdiff.texts import json_fault
from distdiff.weight_files import damage, file_names, shards_fault

MODEL, CHECKPOINT, CLASSIFIER = "encoder.model", "encoder.checkpoint", "encoder.guide.classifier"
TRANSFORMERS_CONFIG = "config.json"
CACHED_CLASSIFIER = "model.safetensors"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
WEIGHTS = (
    r"model\.safetensors",
    r"model-\d+-of-\d+\.safetensors",
    r"pytorch_model\.bin",
    r"pytorch_model-\d+-of-\d+\.bin",
)


def model_fault(folder: Path) -> str | None:
    """Which file of a transformers model cannot be used, and why; None if nothing obvious is wrong."""
    names = file_names(folder)
    if reason := json_fault(folder / TRANSFORMERS_CONFIG, "model_type"):
        return f"{TRANSFORMERS_CONFIG}: {reason}"
    for name in PROCESSORS:
        if name in names and (reason := json_fault(folder / name)):
            return f"{name}: {reason}"
    for pattern in WEIGHTS:  # in the order in which transformers looks for them
        if weights := [name for name in names if re.fullmatch(pattern, name)]:
            damaged = ((name, damage(folder / name)) for name in weights)
            found = next((f"{name}: {reason}" for name, reason in damaged if reason), None)
            return found or shards_fault(folder, weights, names)
    return None


def vision_model_path(model: str) -> Path | None:
    """The transformers folder that `encoder.model` names, or None for a hub id.

    Raises `UserError` for a path that is not a transformers folder.
    """
    return transformers_path(MODEL, model)


def transformers_path(key: str, model: str) -> Path | None:
    """The transformers folder that `<key>=<model>` names, or None for a hub id.

    Raises `UserError` for a path that is not a transformers folder.
    """
    path = local_path(key, model)
    if path is not None and not os.path.lexists(path / TRANSFORMERS_CONFIG):
        raise UserError(f"{key}={model} is no transformers model: it has no {TRANSFORMERS_CONFIG}")
    return path


def checkpoint_path(checkpoint: str) -> Path:
    """The file of weights or the transformers folder that `encoder.checkpoint` names.

    If `checkpoint` is the folder of a cached classifier, the file of weights in that folder is returned. Raises
    `UserError` if the path does not exist, or is a folder of another kind.
    """
    path = Path(checkpoint).expanduser()
    if not path.exists():
        raise UserError(f"{CHECKPOINT}={checkpoint}: {absent(path)}")
    if path.is_file() or os.path.lexists(path / TRANSFORMERS_CONFIG):
        return path
    if os.path.lexists(path / CACHED_CLASSIFIER):
        return path / CACHED_CLASSIFIER
    raise UserError(
        f"{CHECKPOINT}={checkpoint} is no checkpoint: a folder holds {TRANSFORMERS_CONFIG} (transformers) or "
        f"{CACHED_CLASSIFIER} (a cached classifier)"
    )
