"""Reads a transformers model's preprocessing from its processor file."""

from pathlib import Path
from typing import Any

from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
from transformers import PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from distdiff.classification.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from distdiff.encoders.pretrained import vision_config
from distdiff.errors import UserError, first_line
from distdiff.hub import hub_or_cache

PROCESSOR = "preprocessor_config.json"
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers; bicubic replaces all other filters
USUAL_SIZE = 224


def preprocessing_of(
    label: str, network: PreTrainedModel, model: Path | str, revision: str | None = None
) -> Preprocessing:
    """The preprocessing of the model in a folder (`Path`) or with a hub id, as its processor file describes it.

    The whole square image is resized to the size of the processor's crop. Without a processor file, the preprocessing
    uses the model's own `image_size` and ImageNet's mean and std. Raises a `UserError` that starts with `label` if the
    model does not take square images with three channels in the order red, green, blue.
    """
    processor = _content(label, model, revision)
    if not isinstance(processor, dict):
        raise UserError(f"{label}: its {PROCESSOR} does not hold an object, {{…}}")
    if processor.get("do_flip_channel_order"):
        raise UserError(f"{label} is not allowed: it takes images with the channels in the order blue, green, red")
    cropped = processor.get("crop_size") and processor.get("do_center_crop", True)
    wanted = processor.get("crop_size" if cropped else "size")
    size = _side(label, wanted) or _side(label, getattr(vision_config(network), "image_size", None)) or USUAL_SIZE
    mean, std = _normalisation(label, processor)
    return Preprocessing(size, mean, std, RESAMPLE.get(processor.get("resample"), "bicubic"))


def _content(label: str, model: Path | str, revision: str | None) -> dict[str, Any]:
    """The content of the processor file; an empty dictionary if there is no such file.

    No processor is built from the file, since building one may require torchvision.
    """
    on_hub = not isinstance(model, Path)
    try:
        if not on_hub:
            return ImageProcessingMixin.get_image_processor_dict(str(model))[0]
        with hub_or_cache():
            return ImageProcessingMixin.get_image_processor_dict(model, revision=revision)[0]
    except ValueError as error:
        raise UserError(f"{label}: its {PROCESSOR} cannot be read ({first_line(error)})") from None
    except OSError as error:
        if not on_hub:
            if (model / PROCESSOR).exists():
                raise UserError(f"{label}: its {PROCESSOR} cannot be read") from error
            return {}
        # A missing file and an unreachable hub give the same error; the cache tells these two cases apart.
        if try_to_load_from_cache(model, PROCESSOR, revision=revision) is _CACHED_NO_EXIST:
            return {}
        raise UserError(f"{label}: its {PROCESSOR} is not in the cache, and the hub cannot be reached") from error


def _side(label: str, size: Any) -> int | None:
    """The side of the square that `size` describes; None if `size` is None.

    `size` is a number, [height, width], {height, width} or {shortest_edge}. Raises `UserError` if the sides differ.
    """
    if isinstance(size, dict):
        height = size.get("height", size.get("shortest_edge"))
        size = (height, size.get("width", height))
    if isinstance(size, (list, tuple)):
        height, width = size[0], size[-1]
        if height != width:
            raise UserError(f"{label} is not allowed: it takes images of {height} by {width}, not squares")
        return height
    return size


def _normalisation(label: str, processor: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and std with which pixel values in [0, 1] are normalised.

    They are computed from the mean and std in the processor file. The processor starts from pixel levels in [0, 255],
    and applies its mean and std after it has rescaled these levels by its own factor.
    """
    mean, std = (0.0,) * 3, (1.0,) * 3
    if processor.get("do_normalize", "image_mean" in processor or not processor):
        mean, std = processor.get("image_mean") or IMAGENET_MEAN, processor.get("image_std") or IMAGENET_STD
    if len(mean) != 3 or len(std) != 3:
        raise UserError(f"{label} is not allowed: it takes images of {len(mean)} channels, not 3")
    scale = 255 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255.0
    shift = 1.0 if processor.get("rescale_offset") else 0.0
    return tuple((m + shift) / scale for m in mean), tuple(s / scale for s in std)
