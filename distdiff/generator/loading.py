"""Loads a Stable Diffusion pipeline from a folder or the Hugging Face hub; says in one line why it cannot."""

import hashlib
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from omegaconf import DictConfig

from distdiff.errors import UserError
from distdiff.generator.latent_diffusion import LatentDiffusion

ASSETS = Path(__file__).resolve().parents[1] / "assets"
WHOLE_HASH_LIMIT = 64 * 2**20  # larger weight files count by name, size and time of change


def model_path(model: str) -> Path | None:
    """The local folder that `generator.model` names (`asset:<name>` is one of ours), or None for a hub id.

    Raises `UserError` for a path that does not exist or is no pipeline.
    """
    if model.startswith("asset:"):
        return ASSETS / model.removeprefix("asset:")
    path = Path(model).expanduser()
    looks_local = path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1 or path.exists()
    if not looks_local:
        return None
    if not path.exists():
        raise UserError(f"generator.model={model}: no such folder")
    if not (path / "model_index.json").is_file():
        raise UserError(f"generator.model={model} is no diffusers pipeline: it has no model_index.json")
    return path


def fingerprint(config: DictConfig) -> str:
    """Identifies the weights: a hash of a local folder's files, or the hub id and revision."""
    path = model_path(config.model)
    if path is None:
        return f"{config.model}@{config.revision or 'main'}"
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.suffix in (".json", ".txt", ".safetensors", ".bin") and file.is_file():
            stat = file.stat()
            digest.update(str(file.relative_to(path)).encode())
            content = file.read_bytes() if stat.st_size <= WHOLE_HASH_LIMIT else f"{stat.st_size}|{stat.st_mtime_ns}".encode()
            digest.update(content)
    return digest.hexdigest()[:16]


def load_generator(config: DictConfig) -> LatentDiffusion:
    """The pipeline that the `generator` keys name, in `generator.dtype`; raises `UserError` where it cannot be had."""
    path = model_path(config.model)
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            path or config.model,
            revision=None if path else config.revision,
            torch_dtype=getattr(torch, config.dtype),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            use_safetensors=True,
        )
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, ConnectionError) as error:
        raise UserError(f"generator.model={config.model}: {_hub_reason(error)}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if path is None:
            raise UserError(f"generator.model={config.model}: {_hub_reason(error)}") from None
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"generator.model={config.model} is no complete Stable Diffusion pipeline: {reason}") from None
    return LatentDiffusion(pipeline, config.num_steps, config.cfg_scale, config.negative_prompt)


def _hub_reason(error: Exception) -> str:
    text = str(error)
    if "401" in text or "404" in text or "gated" in text.lower():
        return "the hub has no such model, or it needs a login (huggingface-cli login); a local folder works too"
    return "the Hugging Face hub cannot be reached and the model is not in its cache; give a local folder"
