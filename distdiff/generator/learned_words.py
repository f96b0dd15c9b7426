"""Adds textual inversions (Gal et al., 2023), learned words, to a pipeline's tokenizers and text encoders."""

import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError
from safetensors.torch import load_file

from distdiff.errors import UserError, first_line
from distdiff.generator.adapter_files import LEARNED_WORD, adapter_place, fetch_adapter, here
from distdiff.hub import hub_reason
from distdiff.weight_files import damage, not_finite
from distdiff.wording import printable, some

BY_ENCODER = {"clip_l": ("text_encoder", "tokenizer"), "clip_g": ("text_encoder_2", "tokenizer_2")}
UNNAMED = "emb_params"  # the only tensor of a file that AUTOMATIC1111's web interface converted


def add_textual_inversions(pipeline: DiffusionPipeline, entries: Sequence[str]) -> dict[str, list[str]]:
    """Adds learned words, and returns the words that each entry added.

    A prompt uses a learned word if it contains it. A word of several vectors is followed by `<word>_1`, `<word>_2`, … in
    the tokenizer. Raises `UserError` for a file that is no textual inversion, or one for another model.
    """
    return {entry: _add(pipeline, entry) for entry in entries}


def _add(pipeline: DiffusionPipeline, entry: str) -> list[str]:
    key = LEARNED_WORD.key
    if not hasattr(pipeline, "load_textual_inversion"):
        raise UserError(f"{key}={entry} is not allowed: this kind of model takes none")
    place = adapter_place(LEARNED_WORD, entry)
    try:
        file = place if isinstance(place, Path) else fetch_adapter(LEARNED_WORD, place)
    except UserError:
        raise
    except Exception as error:  # the hub's client raises many types of errors
        raise UserError(f"{key}={entry} cannot be loaded: {here(place)}{hub_reason(error)}") from error
    try:
        return _add_words(pipeline, file, _content(file))
    except (UserError, ValueError, OSError, RuntimeError) as error:
        raise UserError(f"{key}={entry} cannot be loaded: {file.name}: {first_line(error)}") from error


def _content(file: Path) -> Mapping[str, Any]:
    """What a file holds. No code of the file runs: a pickle may hold nothing but tensors and plain values."""
    if reason := damage(file):
        raise UserError(reason)
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise UserError(f"it is no safetensors file ({first_line(error)})") from None
    try:
        with torch.serialization.safe_globals([torch.nn.ParameterDict]):  # older files have one
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and "Unsupported" in str(error):
            raise UserError(
                "it holds other Python objects than tensors, which could run code, so it is not read"
            ) from None
        raise UserError(f"it is no file of tensors ({first_line(error)})") from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(f"it is no file of tensors ({first_line(error)})") from None
    if not isinstance(content, Mapping):
        raise UserError(f"it holds a {type(content).__name__}; a textual inversion is {{word: vectors}}")
    return content


def _add_words(pipeline: DiffusionPipeline, file: Path, content: Mapping[str, Any]) -> list[str]:
    two = getattr(pipeline, "tokenizer_2", None) is not None
    if content.keys() & BY_ENCODER.keys():
        if not two:
            raise UserError(f"it has vectors for two text encoders ({', '.join(content)}), and this model has one")
        vectors = _tensors(content)
        lacking = [name for name in BY_ENCODER if name not in vectors]
        if lacking:
            raise UserError(f"it has no {lacking[0]}, only {some(list(vectors))}")
        numbers = {name: len(torch.atleast_2d(vectors[name])) for name in BY_ENCODER}
        if len(set(numbers.values())) > 1:
            counts = " and ".join(f"{number} for {name}" for name, number in numbers.items())
            raise UserError(f"its numbers of vectors differ ({counts}); both text encoders take as many")
        word = f"<{file.stem}>"
        for name, (encoder, tokenizer) in BY_ENCODER.items():
            _add_word(pipeline, word, vectors[name], encoder, tokenizer)
        return [word]
    words = _words(file, content)
    if two:
        raise UserError(
            f"it has no clip_l, only {some(list(words))}; this model takes vectors for both of its text encoders"
        )
    for word, vectors in words.items():
        _add_word(pipeline, word, vectors, "text_encoder", "tokenizer")
    return list(words)


def _words(file: Path, content: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The words of a file for one text encoder: `{word: vectors}`, or a file of AUTOMATIC1111's web interface."""
    if "string_to_param" in content:
        vectors = content["string_to_param"]
        vectors = list(vectors.values()) if isinstance(vectors, (Mapping, torch.nn.ParameterDict)) else []
        name = content.get("name") or file.stem
        if len(vectors) != 1 or not isinstance(name, str):
            raise UserError("its string_to_param does not hold the vectors of one word")
        return _tensors({name: vectors[0]})
    if content.keys() == {UNNAMED}:
        return _tensors({file.stem: content[UNNAMED]})
    return _tensors(content)


def _tensors(content: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    strange = [
        name for name, value in content.items() if not isinstance(value, torch.Tensor) or value.dim() not in (1, 2)
    ]
    if strange or not content:
        raise UserError(
            f"it is no textual inversion: it holds {_named(strange) or 'nothing'}, and a textual inversion is {{word: vectors}}"
        )
    found = {str(name): value.detach() for name, value in content.items()}
    if empty := [name for name, value in found.items() if not value.numel()]:
        raise UserError(f"it has no vectors for {_named(empty)}")
    if reason := not_finite(found):
        raise UserError(f"the vectors of {printable(reason)}".replace(" holds ", " hold "))
    return found


def _named(names: Iterable[object]) -> str:
    return some([repr(name) for name in names])


def _add_word(pipeline: DiffusionPipeline, word: str, vectors: torch.Tensor, encoder: str, tokenizer: str) -> None:
    encoder, tokenizer = getattr(pipeline, encoder), getattr(pipeline, tokenizer)
    width = encoder.get_input_embeddings().weight.shape[1]
    if not word.strip():
        raise UserError("it gives an empty word to its vectors; a learned word needs a name, such as <style>")
    if vectors.shape[-1] != width:
        raise UserError(
            f"the vectors of {word} have {vectors.shape[-1]} numbers, and this model's text encoder takes {width}; it was "
            "made for another kind of model"
        )
    if word in tokenizer.get_vocab():
        raise UserError(f"the model knows the word {word} already; a learned word needs a name of its own")
    pipeline.load_textual_inversion(vectors, token=word, text_encoder=encoder, tokenizer=tokenizer)
