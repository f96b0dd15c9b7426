"""Finds where an encoder's weights are stored.

This module has no heavy imports, because the check of the configuration uses it before anything is loaded.
"""

from pathlib import Path

from distdiff.errors import UserError
from distdiff.hub import local_path

MODEL, CHECKPOINT, CLASSIFIER = "encoder.model", "encoder.checkpoint", "encoder.guide.classifier"
TRANSFORMERS_CONFIG = "config.json"
CACHED_CLASSIFIER = "model.safetensors"


def vision_model_path(model: str) -> Path | None:
    """The transformers folder that `encoder.model` names, or None for a hub id.

    Raises `UserError` for a path that is not a transformers folder.
    """
    path = local_path(MODEL, model)
    if path is not None and not (path / TRANSFORMERS_CONFIG).is_file():
        raise UserError(f"{MODEL}={model} is no transformers model: it has no {TRANSFORMERS_CONFIG}")
    return path


def checkpoint_path(checkpoint: str) -> Path:
    """The file of weights or the transformers folder that `encoder.checkpoint` names.

    If `checkpoint` is the folder of a cached classifier, the file of weights in that folder is returned. Raises
    `UserError` if the path does not exist, or is a folder of another kind.
    """
    path = Path(checkpoint).expanduser()
    if not path.exists():
        raise UserError(f"{CHECKPOINT}={checkpoint}: no such file or folder")
    if path.is_file() or (path / TRANSFORMERS_CONFIG).is_file():
        return path
    if (path / CACHED_CLASSIFIER).is_file():
        return path / CACHED_CLASSIFIER
    raise UserError(
        f"{CHECKPOINT}={checkpoint} is no checkpoint: a folder holds {TRANSFORMERS_CONFIG} (transformers) or "
        f"{CACHED_CLASSIFIER} (a cached classifier)"
    )
