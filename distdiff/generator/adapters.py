"""Adds LoRA weights and textual inversion embeddings to a pretrained pipeline, with diffusers' own loaders."""

from collections.abc import Sequence
from pathlib import Path

from diffusers import DiffusionPipeline
from huggingface_hub import snapshot_download
from huggingface_hub.errors import RevisionResolutionError
from safetensors import SafetensorError
from safetensors.torch import load_file

from distdiff.errors import UserError, first_line
from distdiff.generator.location import model_path, split_scale
from distdiff.hub import hub_or_cache, hub_reason, pinned


def add_loras(pipeline: DiffusionPipeline, entries: Sequence[str]) -> None:
    """Fuses the LoRA of each `path:scale` into the pipeline's weights (Hu et al., 2022).

    Sampling then takes as long as without LoRA.
    """
    if not entries:
        return
    names, scales = [], []
    for number, entry in enumerate(entries):
        path, scale = split_scale(entry)
        local = model_path(path, "generator.lora")
        try:
            pipeline.load_lora_weights(
                str(local or fetch_adapter(path)), adapter_name=f"lora{number}", use_safetensors=True
            )
        except Exception as error:  # diffusers, peft and the hub raise many types of errors for unfit files
            raise UserError(f"generator.lora={entry} cannot be loaded: {_reason(error, local)}") from error
        names.append(f"lora{number}")
        scales.append(scale)
    pipeline.set_adapters(names, scales)
    pipeline.fuse_lora(adapter_names=names)
    pipeline.unload_lora_weights()


def add_textual_inversions(pipeline: DiffusionPipeline, entries: Sequence[str]) -> None:
    """Adds learned words (Gal et al., 2023) to the pipeline's tokenizers and text encoders.

    A prompt uses a learned word if it contains the word's token.
    """
    for entry in entries:
        if not hasattr(pipeline, "load_textual_inversion"):
            raise UserError(f"generator.textual_inversion={entry} is not allowed: this kind of model takes none")
        path = model_path(entry, "generator.textual_inversion")
        try:
            if getattr(pipeline, "tokenizer_2", None) is not None:
                _add_to_both_encoders(pipeline, str(path or entry))
            else:
                pipeline.load_textual_inversion(str(path or fetch_adapter(entry)), use_safetensors=True)
        except Exception as error:  # as in `add_loras`
            raise UserError(f"generator.textual_inversion={entry} cannot be loaded: {_reason(error, path)}") from error


def fetch_adapter(name: str) -> Path:
    """Downloads the safetensors files of the hub id `name`, unless they are cached, and returns their folder.

    Adapters are loaded from a folder because diffusers, when offline, guesses file names only in folders.
    """
    with hub_or_cache():
        commit = pinned(name).resolved
        return Path(snapshot_download(name, revision=commit, allow_patterns="*.safetensors", ignore_patterns="*/*"))


def _add_to_both_encoders(pipeline: DiffusionPipeline, path: str) -> None:
    """Adds a word to both text encoders of Stable Diffusion XL, from a file that has an embedding for each encoder.

    The word's token is the file's name without its extension, in angle brackets.
    """
    try:
        embeddings = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"give a local .safetensors file ({first_line(error)})") from None
    token = f"<{path.rsplit('/', 1)[-1].removesuffix('.safetensors')}>"
    for name, encoder, tokenizer in (
        ("clip_l", pipeline.text_encoder, pipeline.tokenizer),
        ("clip_g", pipeline.text_encoder_2, pipeline.tokenizer_2),
    ):
        if name not in embeddings:
            raise UserError(f"it has no {name}, only {', '.join(embeddings)}")
        pipeline.load_textual_inversion(embeddings[name], token=token, text_encoder=encoder, tokenizer=tokenizer)


def _reason(error: Exception, local: Path | None) -> str:
    of_hub = local is None and isinstance(error, (OSError, RevisionResolutionError))
    return hub_reason(error) if of_hub else first_line(error)
