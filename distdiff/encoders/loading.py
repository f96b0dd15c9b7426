"""Encoders that need no training: CLIP, any vision model, and a classifier's checkpoint."""

from pathlib import Path

from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint as fingerprint_of
from distdiff.caching.fingerprint import fingerprint_files, fingerprint_model
from distdiff.encoders.base import Encoder
from distdiff.encoders.checkpoint import load_checkpoint
from distdiff.encoders.guide import GuideEncoder
from distdiff.encoders.location import MODEL, TRANSFORMERS_CONFIG, checkpoint_path, model_path
from distdiff.encoders.vision import load_clip, load_vision_model
from distdiff.hub import cached_folder

REVISION = 1  # raise when a change here changes features
LOADERS = {"clip": load_clip, "hf": load_vision_model}


def trains_guide(config: DictConfig) -> bool:
    """Do the `encoder` keys ask for a classifier that is trained first?"""
    return config.name == "guide" and config.checkpoint is None


def load_encoder(config: DictConfig, classifier: DictConfig) -> Encoder:
    """The encoder that the `encoder` keys name, a checkpoint read as the `classifier` keys say.

    Raises `UserError` where it cannot be had; a guide that is yet to be trained is not loaded here (`trains_guide`).
    """
    if config.name == "guide":
        return GuideEncoder(load_checkpoint(config.checkpoint, classifier))
    return LOADERS[config.name](config.model, config.revision)


def fetch_encoder(config: DictConfig, classifier: DictConfig) -> dict[str, Path]:
    """Brings what `load_encoder` will take from the hub into its cache: `key=value` to the folder; empty where all is local.

    It is loaded for that, which shows now whether it can serve. Raises `UserError` where it cannot.
    """
    if config.name == "guide" or model_path(config.model) is not None:
        return {}
    load_encoder(config, classifier)
    return {f"{MODEL}={config.model}": cached_folder(config.model, TRANSFORMERS_CONFIG, config.revision)}


def fingerprint(config: DictConfig, classifier: DictConfig) -> str:
    """Identifies what `load_encoder` gives: by the content of local files, or by hub id and revision."""
    ingredients = {"revision": REVISION, "name": config.name}
    if config.name == "guide":
        path = checkpoint_path(config.checkpoint)
        ingredients |= {"checkpoint": fingerprint_files(path)}
        ingredients |= {} if path.is_dir() else {"classifier": classifier}
    else:
        ingredients["model"] = fingerprint_model(model_path(config.model), config.model, config.revision)
    return fingerprint_of(ingredients)
