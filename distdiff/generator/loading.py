"""Loads a Stable Diffusion pipeline from a folder or the Hugging Face hub; says in one line why it cannot."""

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.logging import disable_progress_bar as quiet_diffusers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from omegaconf import DictConfig
from transformers.utils.logging import disable_progress_bar as quiet_transformers

from distdiff.caching.fingerprint import fingerprint_files
from distdiff.errors import UserError
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.location import model_path
from distdiff.hub import first_line, hub_reason

quiet_diffusers()
quiet_transformers()


def fingerprint(config: DictConfig) -> str:
    """Identifies the weights: a hash of a local folder's files, or the hub id and revision."""
    path = model_path(config.model)
    if path is None:
        return f"{config.model}@{config.revision or 'main'}"
    return fingerprint_files(path)


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
        raise UserError(f"generator.model={config.model}: {hub_reason(error)}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if path is None:
            raise UserError(f"generator.model={config.model}: {hub_reason(error)}") from None
        reason = first_line(error)
        raise UserError(f"generator.model={config.model} is no complete Stable Diffusion pipeline: {reason}") from None
    return LatentDiffusion(pipeline, config.num_steps, config.cfg_scale, config.negative_prompt)
