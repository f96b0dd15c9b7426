"""Encoders: the same function as the libraries they come from, differentiable, and refused in one line if they do not fit."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import compose
from huggingface_hub.constants import HF_HUB_CACHE
from omegaconf import MISSING
from PIL import Image
from safetensors.torch import save_file, save_model
from torch import nn
from torch.nn import functional as F
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
from distdiff.classification.training import ClassifierTrainer, TrainingSet, few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.encoders.base import Encoder
from distdiff.encoders.config import GuideKeys
from distdiff.encoders.source import EncoderSource, encoder_source
from distdiff.energy.images import ImageEnergy
from distdiff.errors import UserError
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.job import ExpansionJob
from distdiff.guidance.transform_official import TransformOfficial
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


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, PreTrainedModel]]:
    """A small model with random weights, in a folder with a processor file and in memory."""
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
    config = compose("expand", list(overrides))
    return encoder_source(config, StageCache(config.paths.cache_dir))


def encoder_of(*overrides: str) -> Encoder:
    return source_of(*overrides).load()


def scene(size: int) -> Image.Image:
    """Waves of a few periods in every channel: detail that aliases, and no level near 0 or 255 to clip."""
    x, y = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    waves = [np.sin(40 * x + 9 * y), np.cos(31 * y), np.sin(70 * x * y + 1)]
    return Image.fromarray((127 + 60 * np.stack(waves, -1)).astype(np.uint8))


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].double() / 255


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images - images.new_tensor(MEAN).view(3, 1, 1)) / images.new_tensor(STD).view(3, 1, 1)


def by_pillow(image: Image.Image, resample: Image.Resampling) -> torch.Tensor:
    return normalised(as_tensor(image.resize((SIZE, SIZE), resample)))


def sized_images(count: int = 2) -> torch.Tensor:
    """Already of the input size, so that the model alone is compared."""
    return torch.rand(count, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def cosine_gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).norm(dim=-1).max())


# Pillow rounds to 255 levels, which is all that differs; another resampling, or no antialiasing, is further off.
ROUNDING, OTHER = 0.004, 0.007


@pytest.mark.parametrize("size", [40, 64, 100])
@pytest.mark.parametrize(("number", "resample"), [(2, Image.Resampling.BILINEAR), (3, Image.Resampling.BICUBIC)])
def test_hf_is_the_plain_model_on_what_pillow_resizes_as_the_processor_says(
    saved, tmp_path: Path, size: int, number: int, resample: Image.Resampling
) -> None:
    folder, image = shutil.copytree(saved("dinov2")[0], tmp_path / "model"), scene(size)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | {"resample": number}))
    model = Dinov2Model.from_pretrained(folder).double()
    with torch.no_grad():
        features = encoder_of("encoder=hf", f"encoder.model={folder}").double().features(as_tensor(image))
        for other in (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
            gap = cosine_gap(features, model(pixel_values=by_pillow(image, other)).pooler_output)
            assert gap < ROUNDING if other == resample else gap > OTHER


READINGS = {
    "dinov2": lambda model, x: model(pixel_values=x).pooler_output,
    "vit": lambda model, x: model(pixel_values=x).pooler_output,
    "vit_poolerless": lambda model, x: model(pixel_values=x).last_hidden_state[:, 0],
    "vit_classifier": lambda model, x: model.vit(pixel_values=x).last_hidden_state[:, 0],
    "ijepa": lambda model, x: model(pixel_values=x).last_hidden_state.mean(1),
    "resnet": lambda model, x: model(pixel_values=x).pooler_output[:, :, 0, 0],
    "clip": lambda model, x: model.visual_projection(model.vision_model(pixel_values=x).pooler_output),
    "siglip": lambda model, x: model.vision_model(pixel_values=x).pooler_output,
}


@pytest.mark.parametrize("name", READINGS)
def test_hf_reads_the_features_that_fit_the_model(saved, name: str) -> None:
    folder, model = saved(name)
    encoder, images = encoder_of("encoder=hf", f"encoder.model={folder}"), sized_images().float()
    with torch.no_grad():
        expected = READINGS[name](model, normalised(images))
        torch.testing.assert_close(encoder.features(images), expected)
        torch.testing.assert_close(encoder(images), expected / expected.norm(dim=1, keepdim=True))
    assert encoder.feature_dim == expected.shape[1]


@pytest.mark.parametrize("name", ["clip", "clip_vision"])
def test_clip_is_the_projected_image_embedding(saved, name: str) -> None:
    folder, _ = saved(name)
    model = CLIPVisionModelWithProjection.from_pretrained(folder)
    encoder, images = encoder_of("encoder=clip", f"encoder.model={folder}"), sized_images().float()
    with torch.no_grad():
        torch.testing.assert_close(encoder.features(images), model(normalised(images)).image_embeds)
    assert encoder.input_size == SIZE
    assert encoder.feature_dim == 16


def test_a_masked_autoencoder_sees_every_patch_every_time(saved) -> None:
    folder, _ = saved("mae")
    encoder, image = encoder_of("encoder=hf", f"encoder.model={folder}").double(), sized_images(1)
    whole = ViTMAEModel.from_pretrained(folder, mask_ratio=0.0).double()
    with torch.no_grad():
        expected = whole(normalised(image)).last_hidden_state[:, 0]
        for _ in range(3):
            torch.testing.assert_close(encoder.features(image), expected)


# The layout that timm and torchvision share, written down again: https://arxiv.org/abs/1512.03385, stride in the 3x3.
class Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        kernels = [3, 3] if expansion == 1 else [1, 3, 1]
        widths = [width] * (len(kernels) - 1) + [width * expansion]
        strides = [stride, 1] if expansion == 1 else [1, stride, 1]
        self.depth = len(kernels)
        for i, (kernel, out, step) in enumerate(zip(kernels, widths, strides, strict=True), start=1):
            setattr(
                self, f"conv{i}", nn.Conv2d(inputs if i == 1 else width, out, kernel, step, kernel // 2, bias=False)
            )
            setattr(self, f"bn{i}", nn.BatchNorm2d(out))
        self.downsample = None
        if stride != 1 or inputs != widths[-1]:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, widths[-1], 1, stride, bias=False), nn.BatchNorm2d(widths[-1])
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y.relu() if i < self.depth else y
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class PlainResNet(nn.Module):
    def __init__(self, depths: list[int], expansion: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                blocks.append(Block(inputs, 64 * 2**stage, 2 if stage and not i else 1, expansion))
                inputs = 64 * 2**stage * expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, 10)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                shake(module)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


def plain_resnet18() -> PlainResNet:
    torch.manual_seed(0)
    return PlainResNet([2, 2, 2, 2], 1).eval()


def plain_resnet50() -> PlainResNet:
    torch.manual_seed(0)
    return PlainResNet([3, 4, 6, 3], 4).eval()


def architecture(name: str, input_size: int | None = None) -> list[str]:
    return [f"encoder.guide.classifier={name}"] + ([f"encoder.guide.input_size={input_size}"] if input_size else [])


@pytest.mark.parametrize(
    ("name", "make", "file"),
    [
        ("resnet18", plain_resnet18, "weights.safetensors"),
        ("resnet18", plain_resnet18, "pytorch_model.bin"),
        ("resnet50", plain_resnet50, "lightning.ckpt"),
    ],
)
def test_timm_and_torchvision_weights_give_their_own_features(name: str, make, file: str, tmp_path: Path) -> None:
    model, path = make(), tmp_path / file
    weights = {key: tensor for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    if file.endswith(".safetensors"):
        save_file(weights, path)
    elif file.endswith(".ckpt"):  # someone's LightningModule with the network as an attribute
        torch.save({"state_dict": {f"model.net.{key}": tensor for key, tensor in weights.items()}, "epoch": 3}, path)
    else:
        torch.save(weights, path)
    encoder = encoder_of(*architecture(name, 64), f"encoder.checkpoint={path}").double()
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    mean, std = images.new_tensor([0.485, 0.456, 0.406]), images.new_tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = model.double().features((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        torch.testing.assert_close(encoder.features(images), expected)


@pytest.mark.parametrize("name", ["vit_classifier", "dinov2_classifier", "resnet_classifier"])
def test_the_head_of_a_transformers_classifier_turns_its_features_into_its_logits(saved, name: str) -> None:
    folder, model = saved(name)
    encoder, images = encoder_of(f"encoder.checkpoint={folder}"), sized_images().float()
    with torch.no_grad():
        torch.testing.assert_close(
            model.classifier(encoder.features(images)), model(pixel_values=normalised(images)).logits
        )
    assert encoder.input_size == SIZE


@pytest.fixture
def classifier_files(tmp_path: Path) -> tuple[nn.Module, list[Path]]:
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


def test_our_own_and_lightning_checkpoints_give_the_classifiers_features(classifier_files) -> None:
    classifier, files = classifier_files
    images = torch.rand(3, 3, 40, 40)
    for file in files:
        with torch.no_grad():
            torch.testing.assert_close(
                encoder_of(f"encoder.checkpoint={file}").features(images), classifier.features(images)
            )


@pytest.fixture(params=["guide", "clip", "hf", "transformers classifier"])
def encoder(request: pytest.FixtureRequest, saved) -> Encoder:
    if request.param == "guide":
        path = request.getfixturevalue("classifier_files")[1][1]
        return encoder_of(f"encoder.checkpoint={path}")
    return {
        "clip": lambda: encoder_of("encoder=clip", f"encoder.model={saved('clip')[0]}"),
        "hf": lambda: encoder_of("encoder=hf", f"encoder.model={saved('dinov2')[0]}"),
        "transformers classifier": lambda: encoder_of(f"encoder.checkpoint={saved('vit_classifier')[0]}"),
    }[request.param]()


def test_every_encoder_gives_unit_features_whose_gradient_is_the_finite_difference(encoder: Encoder) -> None:
    for dtype in (torch.float32, torch.float64):
        encoder = encoder.to(dtype)
        images = torch.rand(2, 3, 40, 44, dtype=dtype, requires_grad=True)
        features = encoder(images)
        assert features.shape == (2, encoder.feature_dim)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(2, dtype=dtype))
    towards = torch.randn_like(features)
    (gradient,) = torch.autograd.grad((features * towards).sum(), images)
    direction, step = F.normalize(torch.randn_like(images), dim=(1, 2, 3)), 1e-6
    with torch.no_grad():
        ends = [(encoder(images + sign * step * direction) * towards).sum() for sign in (1, -1)]
    assert gradient.abs().sum() > 0
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-9)


def test_every_encoder_is_frozen_and_stays_in_evaluation_mode(encoder: Encoder) -> None:
    images = torch.rand(4, 3, 32, 32)
    before = encoder(images)
    weights = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    nn.ModuleList([encoder]).train()
    torch.testing.assert_close(encoder(images), before, rtol=0, atol=0)
    assert not before.requires_grad
    assert all(not module.training for module in encoder.modules())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in encoder.state_dict().items())


def test_the_published_transform_sees_a_plain_resize_of_the_decoders_range(encoder: Encoder, monkeypatch) -> None:
    images, extract, seen = torch.rand(2, 3, 64, 64), encoder.extract, []
    monkeypatch.setattr(encoder, "extract", lambda inputs: seen.append(inputs) or extract(inputs))

    class Features(nn.Module):
        """An energy that gives back what it is shown."""

        dtype = torch.float32

        def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return features

    batch = SimpleNamespace(
        denoiser=SimpleNamespace(decode=lambda clean: clean),
        image_energy=ImageEnergy(encoder, Features()),
        targets=None,
    )
    method = TransformOfficial(rho=10.0, epsilon=0.2, init="random")
    features = method.energy_of_clean(images, batch)
    size = (encoder.input_size,) * 2
    decoded = images * 2 - 1
    torch.testing.assert_close(seen[0], F.interpolate(decoded, size=size, mode="bicubic", antialias=False))
    torch.testing.assert_close(features, extract(seen[0]))
    assert not torch.allclose(features.norm(dim=1), torch.ones(2))


PROCESSORS = [
    ({"size": 20, "image_mean": MEAN, "image_std": STD, "do_normalize": True}, 20, MEAN, STD, "bicubic"),
    ({"size": {"height": 20, "width": 20}, "do_normalize": False, "resample": 2}, 20, (0,) * 3, (1,) * 3, "bilinear"),
    (
        {"size": {"shortest_edge": 30}, "crop_size": 28, "do_center_crop": False, "image_mean": MEAN, "image_std": STD},
        30,
        MEAN,
        STD,
        "bicubic",
    ),
    (  # levels x / 127.5 - 1, then mean 0.5 and std 0.5: 4x - 3 of x in [0, 1]
        {
            "size": 20,
            "rescale_factor": 1 / 127.5,
            "rescale_offset": True,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        },
        20,
        (0.75,) * 3,
        (0.25,) * 3,
        "bicubic",
    ),
    (None, SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic"),
]


@pytest.mark.parametrize(("content", "size", "mean", "std", "resample"), PROCESSORS)
def test_preprocessing_is_what_the_processor_file_says(saved, tmp_path, content, size, mean, std, resample) -> None:
    folder = shutil.copytree(saved("dinov2")[0], tmp_path / "model")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(content)) if content else file.unlink()
    preprocess = encoder_of("encoder=hf", f"encoder.model={folder}").preprocess
    assert (preprocess.input_size, preprocess.resample) == (size, resample)
    assert preprocess.mean == pytest.approx(mean)
    assert preprocess.std == pytest.approx(std)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def wrong_checkpoints(tmp_path: Path, saved) -> dict[str, tuple[list[str], str]]:
    """Overrides, and what the refusal says."""
    weights = plain_resnet18().state_dict()
    torch.save(weights, tmp_path / "resnet18.pth")
    torch.save(weights | {"conv1.0.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "deep_stem.pth")
    torch.save({name: tensor for name, tensor in weights.items() if "layer3" not in name}, tmp_path / "part.pth")
    torch.save({"a.weight": torch.zeros(3)}, tmp_path / "stranger.pt")
    torch.save({"best": 0.7}, tmp_path / "numbers.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    (tmp_path / "payload.bin").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    torch.save({"state_dict": Payload(tmp_path / "ran")}, tmp_path / "payload.ckpt")
    (tmp_path / "text.safetensors").write_text("no weights at all")
    (tmp_path / "empty.pth").write_bytes(b"")
    wide = ViTConfig(**EYE | {"hidden_size": 64}).to_dict()
    reshaped = shutil.copytree(saved("vit_classifier")[0], tmp_path / "reshaped")
    (reshaped / "config.json").write_text(json.dumps(wide))
    return {
        "resnet18.pth": (architecture("resnet50"), "does not fit encoder.guide.classifier=resnet50: it lacks"),
        "deep_stem.pth": (architecture("resnet18"), "it has conv1.0.weight, which the classifier lacks"),
        "part.pth": (
            architecture("resnet18"),
            "it lacks layer3.0.bn1.bias and",
        ),
        "stranger.pt": ([], "for a transformers model give its folder"),
        "numbers.pt": ([], "it holds no weights by name"),
        "module.pt": ([], "save its state_dict"),
        "payload.bin": ([], "save its state_dict"),
        "payload.ckpt": ([], "save its state_dict"),
        "text.safetensors": ([], "is no checkpoint that can be read"),
        "empty.pth": ([], "is no checkpoint that can be read"),
        "reshaped": ([], "is no complete image classifier: it lacks fitting weights for"),
    }


def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line_and_runs_no_code(saved, tmp_path: Path) -> None:
    for file, (overrides, words) in wrong_checkpoints(tmp_path, saved).items():
        with pytest.raises(UserError) as caught:
            encoder_of(f"encoder.checkpoint={tmp_path / file}", *overrides)
        assert str(caught.value).startswith(f"encoder.checkpoint={tmp_path / file} ")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "model", "words"),
    [
        ("hf", "nobody/nothing", "the Hugging Face hub cannot be reached"),
        ("clip", "nobody/nothing", "the Hugging Face hub cannot be reached"),
        ("hf", "bert", "is no vision model"),
        ("hf", "vit_grey", "it takes images of 1 channels, not 3"),
        ("clip", "vit", "is no CLIP vision model with a projection: it lacks fitting weights for"),
        ("clip", "clip_unprojected", "it lacks fitting weights for visual_projection.weight"),
    ],
)
def test_a_model_that_cannot_be_an_encoder_is_refused_in_one_line(saved, name: str, model: str, words: str) -> None:
    given = model if "/" in model else saved(model)[0]
    with pytest.raises(UserError) as caught:
        encoder_of(f"encoder={name}", f"encoder.model={given}")
    assert str(caught.value).startswith(f"encoder.model={given}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"do_flip_channel_order": True}, "blue, green, red"),
        ({"crop_size": {"height": 28, "width": 14}}, "28 by 14"),
        ({"image_mean": [0.5], "image_std": [0.5]}, "images of 1 channels"),
    ],
)
def test_preprocessing_that_cannot_be_had_is_refused(saved, tmp_path, change, words: str) -> None:
    folder = shutil.copytree(saved("vit")[0], tmp_path / "model")
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | change))
    with pytest.raises(UserError, match=words):
        encoder_of("encoder=hf", f"encoder.model={folder}")


def test_weights_that_miss_are_refused_even_where_the_pooler_may(saved, tmp_path: Path) -> None:
    folder, model = saved("vit_poolerless")
    copy = shutil.copytree(folder, tmp_path / "model")
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "layernorm.bias"}
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"it lacks fitting weights for layernorm\.bias$"):
        encoder_of("encoder=hf", f"encoder.model={copy}")


def test_pickled_weights_of_a_folder_load_as_tensors_only(saved, tmp_path: Path) -> None:
    folder, model = saved("dinov2")
    copy = shutil.copytree(folder, tmp_path / "model")
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    images = sized_images().float()
    with torch.no_grad():
        expected = model(pixel_values=normalised(images)).pooler_output
    torch.testing.assert_close(encoder_of("encoder=hf", f"encoder.model={copy}").features(images), expected)
    torch.save({"layernorm.bias": Payload(tmp_path / "ran")}, copy / "pytorch_model.bin")
    with pytest.raises(UserError, match=f"^encoder.model={copy} "):
        encoder_of("encoder=hf", f"encoder.model={copy}")
    assert not (tmp_path / "ran").exists()


def test_a_hub_model_comes_from_the_cache_and_only_with_a_processor_file_it_knows_of(saved) -> None:
    folder, model = saved("dinov2")
    cache = Path(HF_HUB_CACHE) / "models--someone--small"
    commit = "0" * 40
    snapshot, absent = cache / "snapshots" / commit, cache / ".no_exist" / commit
    shutil.copytree(folder, snapshot)
    absent.mkdir(parents=True)
    for file in ("processor_config.json", "adapter_config.json", "model.safetensors.index.json"):
        (absent / file).touch()
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    given = ("encoder=hf", "encoder.model=someone/small")
    images = sized_images().float()
    with torch.no_grad():
        expected = model(pixel_values=normalised(images)).pooler_output
    torch.testing.assert_close(encoder_of(*given).features(images), expected)
    (snapshot / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"its preprocessor_config.json is not in the cache"):
        encoder_of(*given)
    (absent / "preprocessor_config.json").touch()
    assert encoder_of(*given).preprocess.mean == (0.485, 0.456, 0.406)


def test_a_fingerprint_follows_content_and_nothing_else(saved, classifier_files, tmp_path: Path) -> None:
    def identity(*overrides: str) -> str:
        return source_of(*overrides).identity(data=None, seed=0)

    folder, file = saved("clip")[0], classifier_files[1][1]
    copy = shutil.copytree(folder, tmp_path / "copy")
    base = identity("encoder=hf", f"encoder.model={folder}")
    assert identity("encoder=hf", f"encoder.model={copy}", "seed=3") == base
    assert identity("encoder=clip", f"encoder.model={copy}") != base
    (copy / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | {"resample": 2}))
    assert identity("encoder=hf", f"encoder.model={copy}") != base
    of_file = identity(f"encoder.checkpoint={file}")
    assert identity(f"encoder.checkpoint={shutil.copy(file, tmp_path / 'moved.safetensors')}") == of_file
    assert identity(f"encoder.checkpoint={file}", "encoder.guide.input_size=64") != of_file
    unread = ["encoder.guide.steps=3", "encoder.guide.augmentation=none"]
    assert identity(f"encoder.checkpoint={file}", *unread) == of_file
    assert identity("encoder=hf", "encoder.model=a/b") != identity(
        "encoder=hf", "encoder.model=a/b", "encoder.revision=x"
    )


@pytest.fixture(scope="module")
def few() -> TrainingSet:
    config = compose("expand", [])
    return few_shot_training_set(config, load_dataset(config.dataset).train, seed=0)


DOWNSTREAM = ["classifier=resnet18", "classifier.input_size=64", "augmentation=randaugment", "train.steps=9"]
DOWNSTREAM += ["train.batch_size=8", "train.learning_rate=0.1", "train.weight_decay=0.1", "train.label_smoothing=0.1"]
DOWNSTREAM += ["train.synthetic_probability=0.2", "train.synthetic_probability=null"]


@pytest.mark.parametrize("change", DOWNSTREAM)
def test_what_is_trained_downstream_changes_neither_the_guide_nor_the_images(few: TrainingSet, change: str) -> None:
    def path(*overrides: str) -> Path:
        config = compose("run", list(overrides))
        return Assembly(config, StageCache(config.paths.cache_dir)).guided(few, config.guidance, 0).path

    assert path(change) == path()


GUIDE = ["classifier=resnet18", "augmentation=none", "input_size=64", "steps=9", "batch_size=8", "learning_rate=0.1"]
GUIDE += ["weight_decay=0.1"]


@pytest.mark.parametrize("change", GUIDE)
def test_each_key_of_the_guides_recipe_makes_another_guide(few: TrainingSet, change: str) -> None:
    assert source_of(f"encoder.guide.{change}").identity(few, 0) != source_of().identity(few, 0)


def test_every_key_of_the_guides_recipe_has_a_value_in_its_yaml_file() -> None:
    keys = compose("expand", []).encoder.guide
    assert set(keys) == {change.partition("=")[0] for change in GUIDE} == {item.name for item in fields(GuideKeys)}
    assert all(item.default == MISSING for item in fields(GuideKeys))  # a default in one place


def test_a_guide_of_the_downstream_recipe_is_the_classifier_of_the_original_images(few, tmp_path: Path) -> None:
    recipe = ["encoder.guide.steps=3", "encoder.guide.classifier=resnet18", "encoder.guide.input_size=32"]
    downstream = ["train.steps=3", "classifier=resnet18", "classifier.input_size=32"]
    config = compose("run", [*recipe, *downstream, f"paths.cache_dir={tmp_path}"])
    cache = StageCache(tmp_path)
    guide = encoder_source(config, cache).encoder(few, 0, "guide")
    assert cache.made == 1
    original = ClassifierTrainer(Recipe.of(config), config.trainer, cache).train(few, 0, "original")
    assert cache.made == 1
    assert guide.input_size == 32
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, guide.classifier.state_dict()[name])


@pytest.fixture
def expansion(small_run: list[str], image_folder: Path, tmp_path: Path) -> Callable[..., tuple[Assembly, ExpansionJob]]:
    def make(*overrides: str) -> tuple[Assembly, ExpansionJob]:
        given = [*small_run, "dataset=imagefolder", f"dataset.root={image_folder}", "expansion.factor=1"]
        if any(item.startswith("encoder=") for item in overrides):  # which has no such keys
            given = [item for item in given if not item.startswith("encoder.guide.")]
        config = compose("expand", [*given, *overrides])
        cache = StageCache(config.paths.cache_dir)
        data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
        expander = Assembly(config, cache)
        job = expander.guided(data, config.guidance, config.seed)
        job.claim()
        return expander, job

    return make


@pytest.mark.parametrize("method", ["direct", "transform_official"])
def test_an_expansion_runs_with_any_encoder_and_trains_no_guide_then(
    expansion, saved, classifier_files, tmp_path: Path, method: str
) -> None:
    paths = set()
    for encoder in (
        ["encoder=hf", f"encoder.model={saved('dinov2')[0]}"],
        ["encoder=clip", f"encoder.model={saved('clip')[0]}"],
        ["encoder=guide", f"encoder.checkpoint={classifier_files[1][2]}"],
    ):
        _, job = expansion(f"guidance={method}", *encoder)
        job.run("test")
        paths.add(job.path)
        assert len(list(job.path.rglob("*.png"))) == len(job.sources)
    assert len(paths) == 3
    assert not (tmp_path / "outputs" / "cache" / "classifiers").exists()


def test_prototypes_are_means_of_the_plain_models_features_of_images_in_the_samplers_size(
    expansion, saved, tmp_path: Path
) -> None:
    folder, model = saved("dinov2")
    expander, job = expansion("encoder=hf", f"encoder.model={folder}", "generator.resolution=64", "dataset.fit=squash")
    config, train = expander.config, job.sources
    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    prototypes = expander.prototypes(
        data, config.seed, expander.encoders.encoder(data, config.seed, "test"), 64, data.fit
    )
    features = []
    for position in range(len(train)):
        shown = train.image(position).resize((64, 64), Image.Resampling.LANCZOS)
        pixels = F.interpolate(as_tensor(shown), size=(SIZE, SIZE), mode="bicubic", antialias=True)
        with torch.no_grad():
            features.append(model(pixel_values=normalised(pixels).float()).pooler_output)
    features = F.normalize(torch.cat(features), dim=-1)
    for label in range(2):
        expected = F.normalize(features[torch.from_numpy(train.labels == label)].mean(0), dim=0)
        torch.testing.assert_close(prototypes.classes[label], expected)
