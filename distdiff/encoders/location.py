"""Where an encoder's weights are (no heavy imports, because validation needs this module before anything is loaded)."""

from pathlib import Path

from distdiff.errors import UserError
from distdiff.hub import local_path

MODEL, CHECKPOINT, CLASSIFIER = "encoder.model", "encoder.checkpoint", "encoder.guide.classifier"
TRANSFORMERS_CONFIG = "config.json"
CACHED_CLASSIFIER = "model.safetensors"


def vision_model_path(model: str) -> Path | None:
    """The transformers folder that `encoder.model` names, or None for a hub id; raises `UserError` for any other folder."""
    path = local_path(MODEL, model)
    if path is not None and not (path / TRANSFORMERS_CONFIG).is_file():
        raise UserError(f"{MODEL}={model} is no transformers model: it has no {TRANSFORMERS_CONFIG}")
    return path


def checkpoint_path(checkpoint: str) -> Path:
    """The file of weights or the transformers folder that `encoder.checkpoint` names; raises `UserError` for anything else.

    For the folder of a cached classifier, this is the file of weights in the folder.
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
