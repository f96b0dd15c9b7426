"""Weights that do not suit a pipeline's parts: missing, too many, of other types, shapes or tasks; one line each."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import saved_pipelines
import torch
from pipelines import _autoencoder, _unet, small_pipeline, small_xl_pipeline, tiny_autoencoder
from safetensors.torch import load_file, save_file
from saved_pipelines import change, image, load, refusal

from distdiff.errors import UserError
from distdiff.generator.latent_diffusion import LatentDiffusion

saved, folder = saved_pipelines.saved, saved_pipelines.folder  # fixtures
UNET, TEXT, VAE = (
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)


@pytest.mark.parametrize("part", [UNET, TEXT, VAE])
def test_tensors_that_are_not_in_the_files_are_counted(folder, part: str) -> None:
    model = folder("sd")
    tensors = load_file(model / part)
    name, number = min(tensors), len(tensors)
    del tensors[name]
    save_file(tensors, model / part, metadata={"format": "pt"})
    message = refusal(model)
    assert (
        f"{part.partition('/')[0]}: 1 of the {number} tensors that its config.json describes are not in its files: "
        in message
    )


def test_weights_of_another_part_are_one_line(folder) -> None:
    model = folder("sd")
    shutil.copy(model / TEXT, model / UNET)
    assert "unet: 206 of the 206 tensors that its config.json describes are not in its files: conv_in.bias" in refusal(
        model
    )


def test_tensors_without_a_place_are_said_and_change_nothing(folder, saved, capsys) -> None:
    model = folder("sd")
    for part in (UNET, TEXT):
        tensors = load_file(model / part) | {"odd.weight": torch.zeros(2)}
        save_file(tensors, model / part, metadata={"format": "pt"})
    got = image(load(model))
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of the 207 tensors in unet have no place in the UNet2DConditionModel that its config.json" in said
    assert "1 of the 21 tensors in text_encoder have no place in the CLIPTextModel that its config.json" in said
    assert torch.equal(got, image(load(saved["sd"])))


def test_names_of_older_versions_have_their_place(folder, saved, capsys) -> None:
    """Stable Diffusion 1's autoencoder has the attention of diffusers 0.2, and its text encoder the positions' numbers."""
    model = folder("sd")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(model / VAE)
    for new, before in old.items():
        tensors = {
            name.replace(f"attentions.0.{new}.", f"attentions.0.{before}."): each for name, each in tensors.items()
        }
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, model / VAE, metadata={"format": "pt"})
    text = {f"text_model.{name.removeprefix('text_model.')}": each for name, each in load_file(model / TEXT).items()}
    text["text_model.embeddings.position_ids"] = torch.arange(48)[None]
    save_file(text, model / TEXT, metadata={"format": "pt"})
    assert torch.equal(image(load(model)), image(load(saved["sd"])))
    assert "no place" not in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool])
def test_quantised_weights_are_refused(folder, dtype: torch.dtype) -> None:
    model = folder("sd")
    save_file({name: each.to(dtype) for name, each in load_file(model / UNET).items()}, model / UNET)
    message = refusal(model)
    assert f"is no complete pipeline: {UNET}: " in message
    assert "it is quantised, and only weights in floating point are read" in message


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_quantised_part_is_named(folder, part: str) -> None:
    model = folder("sd")
    change(model / part / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    assert f"{part}/config.json: it is quantised (bitsandbytes), and only weights in floating point" in refusal(model)


def test_weights_in_eight_bit_floating_point_are_read(folder) -> None:
    model = folder("sd")
    rounded = {name: each.to(torch.float8_e4m3fn) for name, each in load_file(model / UNET).items()}
    save_file(rounded, model / UNET, metadata={"format": "pt"})
    assert torch.equal(load(model).network.conv_in.weight, rounded["conv_in.weight"].float())


def tensor_of_another_shape(model: Path, part: str, name: str) -> None:
    tensors = load_file(model / part)
    full = next(key for key in tensors if key.endswith(name))
    save_file(tensors | {full: torch.zeros(7)}, model / part, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("part", "name", "words"),
    [
        (UNET, "conv_out.bias", "unet: Cannot load because conv_out.bias expected shape torch.Size([4]), but got"),
        (
            TEXT,
            "final_layer_norm.bias",
            "text_encoder: final_layer_norm.bias is [7] in the file, and [16] by its config",
        ),
    ],
)
def test_a_tensor_of_another_shape_is_named_with_its_part(folder, part: str, name: str, words: str) -> None:
    model = folder("sd")
    tensor_of_another_shape(model, part, name)
    assert words in " ".join(refusal(model).split())


def another_part(pipeline, **parts: object):
    for name, part in parts.items():
        setattr(pipeline, name, part)
    return pipeline


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: another_part(small_pipeline(), vae=tiny_autoencoder(4)),
            "its vae is a AutoencoderTiny, and a text-to-",
        ),
        (
            lambda: another_part(small_pipeline(), vae=_autoencoder(4, in_channels=1, out_channels=1)),
            "its vae takes 1 and gives 1 colours, not 3",
        ),
        (
            lambda: another_part(small_pipeline(), unet=_unet(8, cross_attention_dim=16, out_channels=8)),
            "its network gives 8 channels, not the autoencoder's 4",
        ),
        (
            lambda: another_part(small_pipeline(), unet=_unet(8, cross_attention_dim=16, num_class_embeds=10)),
            "its network takes class labels",
        ),
        (
            lambda: another_part(small_pipeline(), text_encoder=small_xl_pipeline().text_encoder_2),
            "its text_encoder is a CLIPTextModelWithProjection, and a Stable Diffusion model takes a CLIPTextModel",
        ),
        (
            lambda: another_part(small_xl_pipeline(), text_encoder_2=small_xl_pipeline().text_encoder),
            "its text_encoder_2 is a CLIPTextModel, and a Stable Diffusion XL model takes a CLIPTextModelWithProjection",
        ),
        (
            lambda: another_part(small_xl_pipeline(), unet=_unet(cross_attention_dim=32)),
            "its network has addition_embed_type=null, and that of a Stable Diffusion XL model text_time",
        ),
    ],
)
def test_a_part_of_another_task_is_one_line_before_the_work_begins(build: Callable, words: str) -> None:
    with pytest.raises(UserError) as caught:
        LatentDiffusion(build(), 4, 1.0, 32, model="a/b")
    assert str(caught.value).startswith("generator.model=a/b is not allowed: ")
    assert words in str(caught.value)
