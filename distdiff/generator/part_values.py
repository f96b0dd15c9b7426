"""Checks the values in the configuration files of a pipeline's parts before the parts are loaded.

diffusers and transformers fill in what a file leaves out, and use most values as they are. A missing number then changes
all images without a word, and a value of a wrong type fails in the middle of the work.
"""

import inspect
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import transformers

from distdiff.generator.kinds import LATENT_CONSISTENCY, STABLE_DIFFUSION, STABLE_DIFFUSION_3, Kind
from distdiff.generator.parts import INDEX, classes, content_of
from distdiff.wording import printable

MISSING = inspect.Parameter.empty
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
BASES = {
    "scheduler": diffusers.SchedulerMixin,
    "tokenizer": transformers.PreTrainedTokenizerBase,
    "text_encoder": transformers.PreTrainedModel,
    "": diffusers.ModelMixin,
}
# Numbers that may be zero or negative although the class's own value is above zero.
ANY_NUMBER = re.compile(r"padding|dropout|initializer|_ids?$")
SHOWN = 40  # characters of a value in a message
VERSION = "_diffusers_version"


def odd_value(folder: Path, kind: Kind, without: typing.Iterable[str] = ()) -> str | None:
    """What the configuration files in a pipeline's folder leave out or say wrongly, with the file, or None."""
    for part, (library, name) in classes(folder).items():
        if part in without:
            continue
        owner = getattr(LIBRARIES.get(library), name, None)
        base = next(base for start, base in BASES.items() if part.startswith(start))
        if not (isinstance(owner, type) and issubclass(owner, base)):
            return f"{INDEX}: {part}={_shown([library, name])} is not allowed: a {base.__name__} of {' or '.join(LIBRARIES)}"
        if part.startswith("tokenizer"):
            file, reason = (
                "tokenizer_config.json",
                _tokenizer_fault(content_of(folder / part / "tokenizer_config.json")),
            )
        else:
            file = getattr(owner, "config_name", None) or "config.json"
            content = content_of(folder / part / file)
            reason = next(_faults(owner, part, name, content, kind), None)
            if part == "scheduler" and "prediction_type" not in content and _is_second_at_768(folder):
                reason = (
                    reason
                    or "it lacks prediction_type: epsilon or, as in Stable Diffusion 2 for 768 pixels, v_prediction"
                )
        if reason:
            return f"{part}/{file}: {reason}"
    return None


def _faults(owner: type, part: str, name: str, content: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    if not isinstance(content.get(VERSION, ""), str):
        yield f"{VERSION}={_shown(content[VERSION])} is not allowed: a version, as text"
    if quantised := content.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        yield f"it is quantised ({printable(str(method))}), and only weights in floating point are read"
    for key, (hint, default) in _parameters(owner).items():
        if key in content and (wanted := _wanted(key, content[key], hint, default)):
            yield f"{key}={_shown(content[key])} is not allowed: {wanted}"
    absent = [key for key in _needed(part, name, content, kind) if key not in content]
    if absent:
        is_one = len(absent) == 1
        yield (
            f"it lacks {', '.join(absent)}, and no other part knows {'it' if is_one else 'them'}; add the "
            f"{'value' if is_one else 'values'} that the model was trained with"
        )


def _is_second_at_768(folder: Path) -> bool:
    """Whether the network is one of Stable Diffusion 2 for 768 pixels; all others mean epsilon if they do not say it."""
    config = content_of(folder / "unet" / "config.json")
    return (config.get("cross_attention_dim"), config.get("sample_size")) == (1024, 96)


def _needed(part: str, name: str, content: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    """The keys whose values change the images, fit no tensor's shape, and have no value that all models of a kind share.

    Files by diffusers and transformers have all of them. What older files of Stable Diffusion leave out is not among
    them: the class's own value is theirs.
    """
    if part == "scheduler":
        if name.startswith("FlowMatch"):
            if kind.is_flow and not content.get("use_dynamic_shifting"):
                yield "shift"
        elif not name.startswith("EDM") and content.get("trained_betas") is None:
            yield from ("beta_start", "beta_end", "beta_schedule")
    elif part == "vae":
        if kind not in (STABLE_DIFFUSION, LATENT_CONSISTENCY):
            yield "scaling_factor"
        if kind is STABLE_DIFFUSION_3:
            yield "shift_factor"
    elif part == "unet" and content.get("num_attention_heads") is None:
        yield "attention_head_dim"
    elif part == "transformer":
        yield from ("attention_head_dim", "num_attention_heads")
    elif name.startswith("CLIPText"):
        yield from ("num_attention_heads", "hidden_act")


def _parameters(owner: type) -> dict[str, tuple[Any, Any]]:
    """Each value that a class takes from its configuration file -> (its type, the class's own value)."""
    config = getattr(owner, "config_class", None)
    if config is None:
        described, own = inspect.unwrap(owner.__init__), None
    else:  # transformers checks these by itself, but does not name the file
        described, own = config, vars(config).get("__annotations__", {})
    try:
        hints = typing.get_type_hints(described) if own is None else own
        parameters = inspect.signature(described).parameters
    except (NameError, TypeError, ValueError):
        return {}
    return {
        key: (hints.get(key, Any), parameter.default)
        for key, parameter in parameters.items()
        if key not in ("self", "prediction_type") and (own is None or key in own)
    }


def _wanted(key: str, value: Any, hint: Any, default: Any) -> str | None:
    """What is allowed in place of `value`, or None if it is allowed."""
    if value is None and (default is None or default is False):
        return None  # as good as left out
    is_default = default not in (MISSING, None) and typing.get_origin(hint) is not typing.Literal
    if not (_fits(value, hint) or (is_default and _fits(value, type(default)))):
        return _named(hint)
    numbers = list(_numbers(value))
    own = list(_numbers(default)) if default is not MISSING else []
    if any(not math.isfinite(number) for number in numbers) and all(map(math.isfinite, own)):
        return "a finite number"
    if ANY_NUMBER.search(key) or any(number < 0 for number in own):
        return None
    # A count that the class leaves open is above zero; another number that it leaves open may be any.
    if any(number <= 0 for number in numbers) and (all(own) if own else float not in _kinds(hint)):
        return "a number above 0"
    if own and any(number < 0 for number in numbers):
        return "a number of at least 0"
    return None


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner if isinstance(value, str) else False
    if hint in (None, types.NoneType):
        return value is None
    if (origin or hint) in (tuple, list, np.ndarray):
        return isinstance(value, list) and all(any(_fits(one, kind) for kind in inner or (Any,)) for one in value)
    if hint is bool:
        return isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    if hint in (str, dict):
        return isinstance(value, hint)
    return hint is Any or hint is Ellipsis or not isinstance(hint, type) or isinstance(value, str | dict)


def _kinds(hint: Any) -> set[Any]:
    """The types that a type is made of."""
    inner = [kind for one in typing.get_args(hint) for kind in _kinds(one)]
    return {*inner} or {hint}


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _named(hint: Any) -> str:
    """A type in plain words.

    >>> _named(int | tuple[int]), _named(typing.Literal["a", "b"]), _named(bool)
    ('a whole number or a list', 'a or b', 'true or false')
    """
    inner = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_named(one) for one in inner))
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, inner))
    if (typing.get_origin(hint) or hint) in (tuple, list, np.ndarray):
        return "a list"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    return words.get(hint, "another type")


def _tokenizer_fault(content: Mapping[str, Any]) -> str | None:
    longest = content.get("model_max_length")
    if longest is not None and not (isinstance(longest, int | float) and longest >= 1 and longest == int(longest)):
        return f"model_max_length={_shown(longest)} is not allowed: a number of tokens above 0"
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        if key not in content:
            continue
        token = content[key]["content"] if _is_added(content[key]) else content[key]
        if not isinstance(token, str) and (token is not None or key in ("bos_token", "eos_token")):
            return f"{key}={_shown(content[key])} is not allowed: a word of its vocabulary"
    return None


def _is_added(token: Any) -> bool:
    return isinstance(token, dict) and "content" in token


def _shown(value: Any) -> str:
    text = printable("null" if value is None else repr(value))
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
