"""Loads a generator: a diffusers folder, a hub id or one checkpoint file, with its adapters; says in one line why not."""

from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline
from diffusers.utils.logging import disable_progress_bar as quiet_diffusers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from omegaconf import DictConfig
from transformers.utils.logging import disable_progress_bar as quiet_transformers

from distdiff.caching.fingerprint import fingerprint_files
from distdiff.errors import UserError
from distdiff.generator.adapters import add_loras, add_textual_inversions
from distdiff.generator.kinds import LATENT_CONSISTENCY, STABLE_DIFFUSION, STABLE_DIFFUSION_3, Kind, kind_of
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.location import local_kind, model_path, split_scale
from distdiff.hub import first_line, hub_reason

quiet_diffusers()
quiet_transformers()
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
    """Identifies all weights that the `generator` keys name: by content where they are local, else by hub id."""
    return {
        "model": _identity(config.model, config.revision),
        "lora": [(_identity(path), scale) for path, scale in map(split_scale, config.lora)],
        "textual_inversion": [_identity(path) for path in config.textual_inversion],
        "guidance_decoder": config.guidance_decoder and _identity(config.guidance_decoder),
    }


def _load_pipeline(config: DictConfig) -> DiffusionPipeline:
    path = model_path(config.model)
    dtype = getattr(torch, config.dtype)
    with _reasons(config.model, is_local=path is not None):
        if path is not None and path.is_file():
            return _load_checkpoint(config, path, local_kind(config.model), dtype)
        where = path or config.model
        hub = {} if path else {"revision": config.revision}
        index = DiffusionPipeline.load_config(where, **hub)
        kind = kind_of(index["_class_name"], config.model)
        kind.check_scheduler(config.scheduler)
        return DiffusionPipeline.from_pretrained(
            where, **hub, **_options(kind, config), variant=config.variant, torch_dtype=dtype, use_safetensors=True
        )


def _load_checkpoint(config: DictConfig, path: Path, kind: Kind, dtype: torch.dtype) -> DiffusionPipeline:
    """One file of weights under the original repositories' names; what it lacks (tokenizers) comes from its kind's folder."""
    where = {"config": config.checkpoint_config} if config.checkpoint_config else {}
    return getattr(diffusers, kind.pipelines[0]).from_single_file(
        str(path), **where, **_options(kind, config), torch_dtype=dtype
    )


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
        decoder = AutoencoderTiny.from_pretrained(
            path or config.guidance_decoder, torch_dtype=getattr(torch, config.dtype)
        )
    if decoder.config.latent_channels != latent_channels:
        raise UserError(
            f"{key}={config.guidance_decoder} is not allowed: it decodes {decoder.config.latent_channels} latent channels, "
            f"the generator has {latent_channels}"
        )
    return decoder


class _reasons:
    """Turns what loading raises into a `UserError` of one line that names `key` and the model."""

    def __init__(self, model: str, is_local: bool, key: str = "generator.model", wanted: str = "pipeline") -> None:
        self.model, self.is_local, self.key, self.wanted = model, is_local, key, wanted

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, UserError):
            return
        if isinstance(error, HUB_ERRORS) or (isinstance(error, Exception) and not self.is_local):
            raise UserError(f"{self.key}={self.model}: {hub_reason(error)}") from error
        if isinstance(error, (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)):
            raise UserError(f"{self.key}={self.model} is no complete {self.wanted}: {first_line(error)}") from error


def _identity(model: str, revision: str | None = None) -> str:
    path = model_path(model)
    return f"{model}@{revision or 'main'}" if path is None else fingerprint_files(path)
