"""Loads a Stable Diffusion pipeline from a folder or the Hugging Face hub; says in one line why it cannot."""

import hashlib

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.logging import disable_progress_bar as quiet_diffusers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from omegaconf import DictConfig
from transformers.utils.logging import disable_progress_bar as quiet_transformers

from distdiff.errors import UserError
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.location import model_path

quiet_diffusers()
quiet_transformers()
WHOLE_HASH_LIMIT = 64 * 2**20  # larger weight files count by name, size and time of change


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
            content = (
                file.read_bytes() if stat.st_size <= WHOLE_HASH_LIMIT else f"{stat.st_size}|{stat.st_mtime_ns}".encode()
            )
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
