"""Loads a generator from a diffusers folder, a hub id or one checkpoint file, together with its adapters.

A failure is reported as an error of one line.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

import diffusers
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline
from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RevisionResolutionError,
)
from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint_files, fingerprint_model
from distdiff.errors import UserError, first_line
from distdiff.generator.adapter_files import (
    LEARNED_WORD,
    LORA,
    AdapterKind,
    HubPlace,
    adapter_identity,
    adapter_place,
    choose_on_hub,
    fetch_adapter,
    here,
)
from distdiff.generator.kinds import LATENT_CONSISTENCY, STABLE_DIFFUSION, STABLE_DIFFUSION_3, Kind, kind_of
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.learned_words import add_textual_inversions
from distdiff.generator.location import RANDOM, local_kind, model_path, split_scale
from distdiff.generator.loras import add_loras
from distdiff.generator.part_values import odd_value
from distdiff.generator.part_weights import load_parts
from distdiff.generator.parts import description_fault, fault, odd_channels, variant_hint, weights_fault
from distdiff.generator.precision import resolved_dtype
from distdiff.generator.random_weights import RECIPE, random_pipeline
from distdiff.generator.tokenizers import take_lengths
from distdiff.hub import LOADING_ERRORS, cached_folder, hub_files, hub_or_cache, hub_reason, pinned

T = TypeVar("T")
HUB_ERRORS = (
    LocalEntryNotFoundError,
    RevisionResolutionError,
    HFValidationError,
    HfHubHTTPError,
    HTTPError,
    ConnectionError,
)
CHECKPOINT_CONFIG = "generator.checkpoint_config"
CHECKPOINT_CONFIG_FILES = [
    "*.json",
    "*.txt",
    "*.model",
]  # a pipeline's tokenizers, and its files that say how to read a checkpoint


def load_generator(config: DictConfig, device: torch.device | str = "cpu") -> LatentDiffusion:
    """The generator that the `generator` keys describe, in the precision `generator.dtype`.

    Networks with random weights are made on `device`, and weights in files are loaded to the CPU; move the result to the
    device that it is to work on. Raises `UserError` if the generator cannot be loaded.
    """
    pipeline = _load_pipeline(config, device)
    take_lengths(pipeline)
    add_loras(pipeline, config.lora)
    learned_words = add_textual_inversions(pipeline, config.textual_inversion)
    return LatentDiffusion(
        pipeline,
        config.num_steps,
        config.cfg_scale,
        config.resolution,
        config.scheduler,
        config.negative_prompt,
        _load_guidance_decoder(config, pipeline.vae.config.latent_channels),
        config.gradient_checkpointing is not False,  # auto: until it is known that memory suffices
        learned_words,
        config.model,
    )


def fetch_generator(config: DictConfig) -> dict[str, Path]:
    """Downloads to the cache the files that `load_generator` needs from the hub.

    Returns {`key=value`: cache folder}, with one entry for each model or adapter on the hub; local ones have no entry.
    Does not load large weights into memory. Raises `UserError` if a download fails.
    """
    folders = {}
    path = model_path(config.model)
    if path is None:
        with _reasons(config.model, is_local=False):
            folder = _download(config, _pipeline_options(config, config.model))
        folders[f"generator.model={config.model}"] = folder
    elif path.is_file():
        folders |= _fetch_checkpoint_config(config)
    for kind, name, _ in _adapters(config):
        place = adapter_place(kind, name)
        if isinstance(place, HubPlace):
            folders[f"{kind.key}={name}"] = _of_hub(kind, name, place, fetch_adapter).parent
    name = config.guidance_decoder
    if name is not None and model_path(name, "generator.guidance_decoder") is None:
        with _reasons(name, is_local=False, key="generator.guidance_decoder"):
            commit = pinned(name).resolved
            AutoencoderTiny.from_pretrained(name, revision=commit)  # loads only ten megabytes
            folders[f"generator.guidance_decoder={name}"] = cached_folder(name, "config.json", commit)
    return folders


def fingerprint(config: DictConfig) -> dict[str, object]:
    """Identifies all weights that the `generator` keys name.

    Local files are identified by their content (`fingerprint_files`), hub ids by their commit. The entry `revision` is
    always None, so that two revisions that name the same commit count as one model.
    """
    checkpoint_config = _checkpoint_config(config)
    return {
        "model": _identity(config.model, config.revision),
        "revision": None,
        "lora": [(adapter_identity(LORA, path), scale) for path, scale in map(split_scale, config.lora)],
        "textual_inversion": [adapter_identity(LEARNED_WORD, path) for path in config.textual_inversion],
        "guidance_decoder": config.guidance_decoder and _identity(config.guidance_decoder),
        "checkpoint_config": checkpoint_config and _identity(checkpoint_config),
    }


def adapter_files(config: DictConfig) -> list[dict[str, object]]:
    """Which file is taken of each LoRA and textual inversion, with its scale and what identifies it.

    Raises `UserError` if a file cannot be chosen, or if the hub does not answer and its cache lacks the file.
    """
    found = []
    for kind, name, scale in _adapters(config):
        place = adapter_place(kind, name)
        file = place.name if isinstance(place, Path) else _of_hub(kind, name, place, choose_on_hub)
        entry = {"key": kind.key, "name": name, "file": file, "identity": adapter_identity(kind, name)}
        found.append(entry if scale is None else entry | {"scale": scale})
    return found


def _of_hub(kind: AdapterKind, name: str, place: HubPlace, ask: Callable[[AdapterKind, HubPlace], T]) -> T:
    """What `ask` finds on the hub; raises `UserError` with the hub's reason."""
    try:
        with hub_or_cache():
            return ask(kind, place)
    except (*HUB_ERRORS, *LOADING_ERRORS) as error:
        raise UserError(f"{kind.key}={name}: {here(place)}{hub_reason(error)}") from error


def _adapters(config: DictConfig) -> Iterator[tuple[AdapterKind, str, float | None]]:
    for path, scale in map(split_scale, config.lora):
        yield LORA, path, scale
    for name in config.textual_inversion:
        yield LEARNED_WORD, name, None


def _load_pipeline(config: DictConfig, device: torch.device | str) -> DiffusionPipeline:
    path = model_path(config.model)
    dtype = _dtype(config)
    if config.model.startswith(RANDOM):
        return random_pipeline(path, local_kind(config.model), dtype, device)
    if path is not None and path.is_file():
        return _load_checkpoint(config, path, local_kind(config.model), dtype)
    if path is not None:
        local_kind(config.model)  # says what is wrong with its index
    with _reasons(config.model, is_local=path is not None):
        options = _pipeline_options(config, path or config.model)
        folder = path or _download(config, options)
        kind = kind_of(DiffusionPipeline.load_config(folder)["_class_name"], config.model)
        if reason := odd_channels(folder):
            raise UserError(f"generator.model={config.model} is not allowed: {reason}")
        absent = [name for name, value in options.items() if value is None]
        if reason := fault(folder, config.variant, absent):
            raise UserError(f"generator.model={config.model} is no complete pipeline: {reason}")
        if reason := odd_value(folder, kind, absent):
            raise UserError(f"generator.model={config.model} is no complete pipeline: {reason}")
        options.pop("revision", None)
        parts = load_parts(folder, config.model, config.variant, absent, dtype)
        # The folder may name another class, such as the one for img2img; its parts are those of text-to-image.
        return getattr(diffusers, kind.pipeline).from_pretrained(folder, **options, **parts, dtype=dtype)


def _dtype(config: DictConfig) -> torch.dtype:
    return getattr(torch, resolved_dtype(config.dtype, on_cpu=not torch.cuda.is_available()))


def _download(config: DictConfig, options: dict[str, object]) -> Path:
    """The folder in the hub's cache with the pipeline's files; what it lacks is downloaded.

    Raises the errors of the hub's client, and `UserError` if the hub has only a variant of the weights.
    """
    try:
        return Path(DiffusionPipeline.download(config.model, **options))
    except (*HUB_ERRORS, *LOADING_ERRORS):
        with suppress(*HUB_ERRORS, *LOADING_ERRORS):
            hint = variant_hint(hub_files(config.model, config.revision)) if config.variant is None else None
            if hint:
                raise UserError(f"generator.model={config.model}: {hint}") from None
        raise


def _pipeline_options(config: DictConfig, where: Path | str) -> dict[str, object]:
    """The loading options of a diffusers folder (`Path`) or hub id.

    Raises `UserError` for an unsupported kind of pipeline, and for a scheduler that does not fit the kind.
    """
    hub = {} if isinstance(where, Path) else {"revision": pinned(where, config.revision).resolved}
    kind = kind_of(DiffusionPipeline.load_config(where, **hub)["_class_name"], config.model)
    kind.check_scheduler(config.scheduler)
    return {**hub, **_options(kind, config), "variant": config.variant, "use_safetensors": True}


def _load_checkpoint(config: DictConfig, path: Path, kind: Kind, dtype: torch.dtype) -> DiffusionPipeline:
    """Loads a checkpoint file whose tensors have the names of the original repositories.

    `checkpoint_config` names the pipeline that provides everything else, such as the tokenizers.
    """
    is_local = False
    try:
        name = _checkpoint_config(config)
        folder = model_path(name, CHECKPOINT_CONFIG)
        is_local = folder is not None
        if folder is not None and (reason := fault(folder, without=_options(kind, config), weights=False)):
            raise UserError(f"{CHECKPOINT_CONFIG}={name} is no diffusers pipeline: {reason}")
        with nullcontext() if is_local else hub_or_cache():
            where = {"config": name} if is_local else {"config": name, "revision": pinned(name).resolved}
            return getattr(diffusers, kind.pipeline).from_single_file(
                str(path), **where, **_options(kind, config), dtype=dtype
            )
    except UserError:
        raise
    except (*HUB_ERRORS, *LOADING_ERRORS) as error:
        reason = hub_reason(error) if isinstance(error, HUB_ERRORS) and not is_local else first_line(error)
        raise UserError(
            f"generator.model={config.model} cannot be read with generator.checkpoint_config="
            f"{config.checkpoint_config or 'null'}, which is to name the folder (or hub id) of a diffusers pipeline of the "
            f"same shape: {reason}"
        ) from error


def _fetch_checkpoint_config(config: DictConfig) -> dict[str, Path]:
    name = _checkpoint_config(config)
    if model_path(name, CHECKPOINT_CONFIG) is not None:
        return {}
    with _reasons(name, is_local=False, key=CHECKPOINT_CONFIG):
        folder = snapshot_download(name, revision=pinned(name).resolved, allow_patterns=CHECKPOINT_CONFIG_FILES)
        return {f"{CHECKPOINT_CONFIG}={name}": Path(folder)}


def _checkpoint_config(config: DictConfig) -> str | None:
    """The value of `checkpoint_config`.

    If the value is null and the model is a checkpoint file, the hub id that diffusers chooses for the file is returned.
    """
    path = model_path(config.model)
    if path is None or not path.is_file() or config.checkpoint_config is not None:
        return config.checkpoint_config
    # diffusers chooses by the tensors' names and shapes, and maps the file into memory without reading all of the file
    return fetch_diffusers_config(load_single_file_checkpoint(str(path)))["pretrained_model_name_or_path"]


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
    if path is not None and (reason := description_fault(path) or weights_fault(path)):
        it = "it " if reason.startswith("has ") else ""
        raise UserError(f"{key}={config.guidance_decoder} is no complete AutoencoderTiny: {it}{reason}")
    with _reasons(config.guidance_decoder, path is not None, key, "AutoencoderTiny"):
        hub = {} if path is not None else {"revision": pinned(config.guidance_decoder).resolved}
        decoder = AutoencoderTiny.from_pretrained(path or config.guidance_decoder, **hub, dtype=_dtype(config))
    if decoder.config.latent_channels != latent_channels:
        raise UserError(
            f"{key}={config.guidance_decoder} is not allowed: it decodes {decoder.config.latent_channels} latent channels, "
            f"the generator has {latent_channels}"
        )
    return decoder


@contextmanager
def _reasons(model: str, is_local: bool, key: str = "generator.model", wanted: str = "pipeline") -> Iterator[None]:
    """A context that turns loading errors into a one-line `UserError`, which names `key` and the model."""
    try:
        with nullcontext() if is_local else hub_or_cache():
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
    if model.startswith(RANDOM):  # the architecture and the rule that fills it
        return f"{RANDOM}{fingerprint_files(model_path(model))}+{RECIPE}"
    return fingerprint_model(model_path(model), model, revision)
