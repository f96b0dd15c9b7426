"""Encoders of the `transformers` library give the plain model's features of what its processor file says, or are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from encoder_models import (
    MEAN,
    PROCESSOR,
    SIZE,
    STD,
    Payload,
    as_tensor,
    encoder_of,
    normalised,
    saved_models,
    sized_images,
)
from huggingface_hub.constants import HF_HUB_CACHE
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import CLIPVisionModelWithProjection, Dinov2Model, PreTrainedModel, ViTMAEModel

from distdiff.errors import UserError


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, PreTrainedModel]]:
    return saved_models(tmp_path_factory)


def scene(size: int) -> Image.Image:
    """Waves of a few periods in every channel: detail that aliases, and no level near 0 or 255 to clip."""
    x, y = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    waves = [np.sin(40 * x + 9 * y), np.cos(31 * y), np.sin(70 * x * y + 1)]
    return Image.fromarray((127 + 60 * np.stack(waves, -1)).astype(np.uint8))


def by_pillow(image: Image.Image, resample: Image.Resampling) -> torch.Tensor:
    return normalised(as_tensor(image.resize((SIZE, SIZE), resample)))


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
