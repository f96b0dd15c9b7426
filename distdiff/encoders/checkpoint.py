"""Reads `encoder.checkpoint`, a classifier that was trained elsewhere and that serves as the guide."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForImageClassification, PreTrainedModel

from distdiff.classification.networks import ImageClassifier
from distdiff.classification.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from distdiff.encoders.location import CHECKPOINT, CLASSIFIER, checkpoint_path
from distdiff.encoders.pretrained import load_pretrained, loading, some_of
from distdiff.encoders.processor import preprocessing_of
from distdiff.encoders.vision import VisionFeatures
from distdiff.errors import UserError, first_line
from distdiff.hub import LOADING_ERRORS
from distdiff.keys import NAME, build
from distdiff.weight_files import damage

BACKBONE = "backbone."
NESTED = ("state_dict", "model")  # the keys under which training programs save the weights
TIMM_MARK = "layer1.0.conv1.weight"  # this name, after any prefix, is in every ResNet of timm or torchvision
TIMM_NAMES = [  # patterns that turn transformers' names, as in our ResNets, into timm's and torchvision's names
    (r"^model\.embedder\.embedder\.convolution\.", lambda _: "conv1."),
    (r"^model\.embedder\.embedder\.normalization\.", lambda _: "bn1."),
    (r"^model\.encoder\.stages\.(\d)\.layers\.", lambda found: f"layer{int(found[1]) + 1}."),
    (r"\.layer\.(\d)\.convolution\.", lambda found: f".conv{int(found[1]) + 1}."),
    (r"\.layer\.(\d)\.normalization\.", lambda found: f".bn{int(found[1]) + 1}."),
    (r"\.shortcut\.convolution\.", lambda _: ".downsample.0."),
    (r"\.shortcut\.normalization\.", lambda _: ".downsample.1."),
]
TIMM_HEAD = "fc."
COUNTER = "num_batches_tracked"  # a buffer that old files lack and that does not change features
UNTRAINED_CLASSES = 1


def load_checkpoint(checkpoint: str, architecture: Mapping[str, Any]) -> ImageClassifier:
    """The classifier of a checkpoint. Its head is untrained, so only its features are meaningful.

    `checkpoint` is a file or a folder. A file holds the weights of one of DistDiff's classifiers, saved by DistDiff or
    by Lightning, or the weights of a ResNet whose tensors are named as in timm and torchvision. The architecture is
    then `architecture`, an option of `conf/classifier`. A folder holds a transformers image classifier, whose
    configuration file describes its architecture. Raises `UserError` if the checkpoint does not exist or does not fit
    the architecture.
    """
    path = checkpoint_path(checkpoint)
    label = f"{CHECKPOINT}={checkpoint}"
    if path.is_dir():
        return _transformers_classifier(path, label)
    classifier = build(architecture, UNTRAINED_CLASSES)
    weights = read_tensors(path, label)
    names = {name: name for name in classifier.backbone.state_dict()}
    if mark := next((name for name in weights if f".{name}".endswith(f".{TIMM_MARK}")), None):
        weights = _below(weights, mark.removesuffix(TIMM_MARK))
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(TIMM_HEAD)}
        names = {name: timm_name(name) for name in names}
        classifier.preprocess = replace(classifier.preprocess, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    elif ours := next((name for name in weights if f".{BACKBONE}" in f".{name}"), None):
        weights = _below(weights, ours[: f".{ours}".index(f".{BACKBONE}")] + BACKBONE)
    else:
        raise UserError(
            f"{label} is not allowed: its names are neither those of a classifier here nor of a timm or torchvision "
            "ResNet; for a transformers model give its folder"
        )
    _load_fitting(classifier.backbone, weights, names, f"{label} does not fit {CLASSIFIER}={architecture[NAME]}")
    return classifier


def read_tensors(path: Path, label: str) -> dict[str, torch.Tensor]:
    """The tensors of a file, by name. No code from the file is run.

    Raises a `UserError` that starts with `label` if the file cannot be read or has no tensors.
    """
    if reason := damage(path):
        raise UserError(
            f"{label} is no checkpoint that can be read: {'' if label.endswith(path.name) else f'{path.name}: '}{reason}"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"{label} is not allowed: it is no checkpoint of plain tensors, and other objects could run code when they are "
            "read; save its state_dict, or .safetensors"
        ) from error
    except (*LOADING_ERRORS, EOFError) as error:
        raise UserError(f"{label} is no checkpoint that can be read ({first_line(error)})") from error
    for name in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = content if isinstance(content, Mapping) else {}
    tensors = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}
    if not tensors:
        raise UserError(f"{label} is no checkpoint: it holds no weights by name")
    return tensors


def timm_name(name: str) -> str:
    """The name that timm and torchvision use for a tensor of our ResNet backbones.

    >>> timm_name("model.encoder.stages.0.layers.1.layer.1.convolution.weight")
    'layer1.1.conv2.weight'
    """
    for pattern, replacement in TIMM_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _below(weights: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _load_fitting(
    network: nn.Module, weights: Mapping[str, torch.Tensor], names: Mapping[str, str], refusal: str
) -> None:
    """Loads `weights` into `network`; raises a `UserError` that starts with `refusal` if the weights do not fit.

    `names` maps the names of the network's tensors to the names of the tensors in `weights`.
    """
    wanted = {names[name]: tensor for name, tensor in network.state_dict().items()}
    lacking = {name for name in wanted.keys() - weights.keys() if not name.endswith(COUNTER)}
    strange = weights.keys() - wanted.keys()
    reshaped = {name for name in wanted.keys() & weights.keys() if wanted[name].shape != weights[name].shape}
    reasons = [f"it lacks {some_of(lacking)}"] if lacking else []
    reasons += [f"it has {some_of(strange)}, which the classifier lacks"] if strange else []
    reasons += [f"the shape differs for {some_of(reshaped)}"] if reshaped else []
    if reasons:
        raise UserError(f"{refusal}: {'; '.join(reasons)}")
    network.load_state_dict({name: weights[given] for name, given in names.items() if given in weights}, strict=False)


def _transformers_classifier(folder: Path, label: str) -> ImageClassifier:
    """Loads a classifier and replaces its linear head with the identity, since the head's input is the features."""
    network, lacking = load_pretrained(AutoModelForImageClassification, label, folder)
    heads = _linear_heads(network)
    lacking = {name for name in lacking if not name.startswith(tuple(f"{head}." for head in heads))}
    if lacking:
        raise UserError(f"{label} is no complete image classifier: it lacks fitting weights for {some_of(lacking)}")
    for head in heads:
        network.set_submodule(head, nn.Identity())
    preprocess = preprocessing_of(label, network, folder)
    backbone = VisionFeatures(network, logits)
    with loading(label):
        feature_dim = backbone.feature_dim(preprocess.input_size)
    classifier = ImageClassifier(backbone, feature_dim, UNTRAINED_CLASSES, preprocess.input_size, mean=0.0, std=1.0)
    classifier.preprocess = preprocess
    return classifier


def logits(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=inputs).logits


def _linear_heads(network: PreTrainedModel) -> list[str]:
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and not name.startswith(f"{network.base_model_prefix}.")
        and module.out_features == network.config.num_labels
    ]
