"""Small models of `transformers` with random weights, saved as encoders are found, and how tests read their features."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose, compose_once
from PIL import Image
from safetensors.torch import save_model
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    IJepaConfig,
    IJepaModel,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from distdiff.caching.stages import StageCache
from distdiff.classification.module import ClassifierTraining
from distdiff.classification.recipe import Recipe
from distdiff.encoders.base import Encoder
from distdiff.encoders.source import EncoderSource, encoder_source
from distdiff.keys import build
from distdiff.ranks.trainer import build_trainer

SIZE = 28
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
PROCESSOR = {"size": {"shortest_edge": 32}, "crop_size": {"height": SIZE, "width": SIZE}, "resample": 3}
PROCESSOR |= {"do_center_crop": True, "do_normalize": True, "image_mean": MEAN, "image_std": STD}
BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
EYE = {**BODY, "image_size": SIZE, "patch_size": 7}
TEXT = {**BODY, "vocab_size": 40, "eos_token_id": 2}
RESNET = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)


def clip() -> CLIPModel:
    text, vision = CLIPTextConfig(**TEXT, projection_dim=16), CLIPVisionConfig(**EYE, projection_dim=16)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16))


def siglip() -> SiglipModel:
    text, vision = SiglipTextConfig(**TEXT), SiglipVisionConfig(**EYE)
    return SiglipModel(SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "dinov2": lambda: Dinov2Model(Dinov2Config(**EYE)),
    "dinov2_classifier": lambda: Dinov2ForImageClassification(Dinov2Config(**EYE, num_labels=5)),
    "vit": lambda: ViTModel(ViTConfig(**EYE)),
    "vit_poolerless": lambda: ViTModel(ViTConfig(**EYE), add_pooling_layer=False),
    "vit_classifier": lambda: ViTForImageClassification(ViTConfig(**EYE, num_labels=5)),
    "vit_grey": lambda: ViTModel(ViTConfig(**EYE, num_channels=1)),
    "ijepa": lambda: IJepaModel(IJepaConfig(**EYE), add_pooling_layer=False),
    "mae": lambda: ViTMAEModel(ViTMAEConfig(**EYE)),
    "resnet": lambda: ResNetModel(RESNET),
    "resnet_classifier": lambda: ResNetForImageClassification(RESNET),
    "clip": clip,
    "clip_vision": lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**EYE, projection_dim=16)),
    "clip_unprojected": lambda: CLIPVisionModel(CLIPVisionConfig(**EYE)),
    "siglip": siglip,
    "bert": lambda: BertModel(BertConfig(**TEXT)),
}


def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, PreTrainedModel]]:
    """Makes a small model with random weights: in a folder with a processor file, and in memory."""
    made: dict[str, tuple[Path, PreTrainedModel]] = {}

    def save(name: str) -> tuple[Path, PreTrainedModel]:
        if name not in made:
            torch.manual_seed(0)
            model = MODELS[name]().eval()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    shake(module)
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
            made[name] = folder, model
        return made[name]

    return save


def shake(norm: nn.BatchNorm2d) -> None:
    """Statistics that a wrong order of the norms would give away."""
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.uniform_(norm.bias, -0.2, 0.2)
    norm.running_mean.uniform_(-0.2, 0.2)
    norm.running_var.uniform_(0.5, 1.5)


def source_of(*overrides: str) -> EncoderSource:
    config = compose_once("expand", list(overrides))
    return encoder_source(config, StageCache(config.paths.cache_dir))


def encoder_of(*overrides: str) -> Encoder:
    return source_of(*overrides).load()


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].double() / 255


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images - images.new_tensor(MEAN).view(3, 1, 1)) / images.new_tensor(STD).view(3, 1, 1)


def sized_images(count: int = 2) -> torch.Tensor:
    """Already of the input size, so that the model alone is compared."""
    return torch.rand(count, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def save_classifier(tmp_path: Path) -> tuple[nn.Module, list[Path]]:
    """A small classifier, saved as the classifier cache does (file, folder) and by a Lightning trainer."""
    torch.manual_seed(0)
    config = compose("train", [])
    classifier = build(config.classifier, 4)
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            shake(module)
    cached = tmp_path / "cached"
    cached.mkdir()
    save_model(classifier, str(cached / "model.safetensors"))
    trainer = build_trainer(config.trainer, max_steps=1, enable_progress_bar=False)
    module = ClassifierTraining(classifier, nn.Identity(), Recipe.of(config))
    trainer.fit(module, DataLoader([(torch.rand(3, 32, 32), label) for label in range(4)], 4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    save_model(classifier.eval(), str(cached / "model.safetensors"))
    return classifier, [cached, cached / "model.safetensors", tmp_path / "last.ckpt"]


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)
