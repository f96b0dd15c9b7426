"""`encoder.checkpoint`: weights of timm, torchvision, transformers, Lightning and our own give their features, or are refused."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from encoder_models import (
    EYE,
    SIZE,
    Payload,
    encoder_of,
    normalised,
    save_classifier,
    saved_models,
    shake,
    sized_images,
)
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, ViTConfig

from distdiff.errors import UserError


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, PreTrainedModel]]:
    return saved_models(tmp_path_factory)


@pytest.fixture
def classifier_files(tmp_path: Path) -> tuple[nn.Module, list[Path]]:
    return save_classifier(tmp_path)


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


def test_our_own_and_lightning_checkpoints_give_the_classifiers_features(classifier_files) -> None:
    classifier, files = classifier_files
    images = torch.rand(3, 3, 40, 40)
    for file in files:
        with torch.no_grad():
            torch.testing.assert_close(
                encoder_of(f"encoder.checkpoint={file}").features(images), classifier.features(images)
            )


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
