"""Loads a generator: a diffusers folder, a hub id or one checkpoint file, with its adapters; says in one line why not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline
from diffusers.utils.logging import disable_progress_bar as quiet_diffusers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from omegaconf import DictConfig
from transformers.utils.logging import disable_progress_bar as quiet_transformers

from distdiff.caching.fingerprint import fingerprint_model
from distdiff.errors import UserError, first_line
from distdiff.generator.adapters import add_loras, add_textual_inversions
from distdiff.generator.kinds import LATENT_CONSISTENCY, STABLE_DIFFUSION, STABLE_DIFFUSION_3, Kind, kind_of
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.location import local_kind, model_path, split_scale
from distdiff.hub import hub_reason

quiet_diffusers()
quiet_transformers()
LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
HUB_ERRORS = (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, ConnectionError)


def load_generator(config: DictConfig) -> LatentDiffusion:
    """The pipeline that the `generator` keys name, in `generator.dtype`; raises `UserError` where it cannot be had."""
    pipeline = _load_pipeline(config)
    add_loras(pipeline, config.lora)
    add_textual_inversions(pipeline, config.textual_inversion)
    return LatentDiffusion(
        pipeline,
        config.num_steps,
        config.cfg_scale,
        config.resolution,
        config.scheduler,
        config.negative_prompt,
        _load_guidance_decoder(config, pipeline.vae.config.latent_channels),
        config.gradient_checkpointing,
    )


def fingerprint(config: DictConfig) -> dict[str, object]:
    """Identifies all weights that the `generator` keys name: local ones by content (`fingerprint_files`), others by hub id."""
    return {
        "model": _identity(config.model, config.revision),
        "lora": [(_identity(path), scale) for path, scale in map(split_scale, config.lora)],
        "textual_inversion": [_identity(path) for path in config.textual_inversion],
        "guidance_decoder": config.guidance_decoder and _identity(config.guidance_decoder),
        "checkpoint_config": config.checkpoint_config and _identity(config.checkpoint_config),
    }


def _load_pipeline(config: DictConfig) -> DiffusionPipeline:
    path = model_path(config.model)
    dtype = getattr(torch, config.dtype)
    if path is not None and path.is_file():
        return _load_checkpoint(config, path, local_kind(config.model), dtype)
    with _reasons(config.model, is_local=path is not None):
        where = path or config.model
        hub = {} if path else {"revision": config.revision}
        index = DiffusionPipeline.load_config(where, **hub)
        kind = kind_of(index["_class_name"], config.model)
        kind.check_scheduler(config.scheduler)
        return DiffusionPipeline.from_pretrained(
            where, **hub, **_options(kind, config), variant=config.variant, dtype=dtype, use_safetensors=True
        )


def _load_checkpoint(config: DictConfig, path: Path, kind: Kind, dtype: torch.dtype) -> DiffusionPipeline:
    """One file of weights under the original repositories' names; what it lacks (tokenizers) comes from its kind's folder."""
    where = {"config": config.checkpoint_config} if config.checkpoint_config else {}
    try:
        return getattr(diffusers, kind.pipelines[0]).from_single_file(
            str(path), **where, **_options(kind, config), dtype=dtype
        )
    except (*HUB_ERRORS, *LOADING_ERRORS) as error:
        raise UserError(
            f"generator.model={config.model} cannot be read with generator.checkpoint_config="
            f"{config.checkpoint_config or 'null'}, which is to name the folder (or hub id) of a diffusers pipeline of the "
            f"same shape: {first_line(error)}"
        ) from error


def _options(kind: Kind, config: DictConfig) -> dict[str, object]:
    if kind in (STABLE_DIFFUSION, LATENT_CONSISTENCY):
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if kind is STABLE_DIFFUSION_3 and not config.use_t5:
        return {"text_encoder_3": None, "tokenizer_3": None}
    return {}


def _load_guidance_decoder(config: DictConfig, latent_channels: int) -> AutoencoderTiny | None:
    if config.guidance_decoder is None:
        return None
    key = "generator.guidance_decoder"
    path = model_path(config.guidance_decoder, key)
    with _reasons(config.guidance_decoder, path is not None, key, "AutoencoderTiny"):
        decoder = AutoencoderTiny.from_pretrained(path or config.guidance_decoder, dtype=getattr(torch, config.dtype))
    if decoder.config.latent_channels != latent_channels:
        raise UserError(
            f"{key}={config.guidance_decoder} is not allowed: it decodes {decoder.config.latent_channels} latent channels, "
            f"the generator has {latent_channels}"
        )
    return decoder


@contextmanager
def _reasons(model: str, is_local: bool, key: str = "generator.model", wanted: str = "pipeline") -> Iterator[None]:
    """Turns what loading raises into a `UserError` of one line that names `key` and the model."""
    try:
        yield
    except UserError:
        raise
    except HUB_ERRORS as error:
        raise UserError(f"{key}={model}: {hub_reason(error)}") from error
    except LOADING_ERRORS as error:
        if not is_local:
            raise UserError(f"{key}={model}: {hub_reason(error)}") from error
        raise UserError(f"{key}={model} is no complete {wanted}: {first_line(error)}") from error


def _identity(model: str, revision: str | None = None) -> str:
    return fingerprint_model(model_path(model), model, revision)
