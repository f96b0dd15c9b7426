"""Folders of pipelines as people have them: saved as another class, as a variant alone, damaged, or put together wrongly."""

import json
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from conftest import compose
from diffusers import UNet2DConditionModel
from hub_server import Hub, forget, send_downloads_to, served
from original_checkpoint import original_names
from pipelines import _text_config, small_lcm_pipeline, small_pipeline, small_sd3_pipeline, small_xl_pipeline
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from distdiff.errors import UserError
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.location import local_kind
from distdiff.generator.pipelines import load_generator


def load(model: Path | str, *overrides: str) -> LatentDiffusion:
    given = ["generator=local", f"generator.model={model}", "generator.resolution=32", *overrides]
    return load_generator(compose("expand", given).generator)


def refusal(model: Path | str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(model, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (small_pipeline, "StableDiffusionImg2ImgPipeline"),
        (small_pipeline, "StableDiffusionInpaintPipeline"),
        (small_xl_pipeline, "StableDiffusionXLImg2ImgPipeline"),
        (small_xl_pipeline, "StableDiffusionXLInpaintPipeline"),
        (small_sd3_pipeline, "StableDiffusion3Img2ImgPipeline"),
        (small_sd3_pipeline, "StableDiffusion3InpaintPipeline"),
        (small_lcm_pipeline, "LatentConsistencyModelImg2ImgPipeline"),
        (small_pipeline, "StableDiffusionPAGPipeline"),
    ],
)
def test_a_pipeline_saved_as_another_class_of_its_family_is_the_same_generator(
    build: Callable, name: str, tmp_path: Path
) -> None:
    plain = build()
    plain.save_pretrained(tmp_path / "plain")
    getattr(diffusers, name).from_pipe(plain).save_pretrained(tmp_path / "other")
    assert json.loads((tmp_path / "other" / "model_index.json").read_text())["_class_name"] == name
    ours, theirs = load(tmp_path / "plain"), load(tmp_path / "other")
    assert type(ours.family) is type(theirs.family)
    latents = torch.randn(1, *ours.latent_shape)
    outputs = [part.denoiser(part.embed(["a cat"])).predict(latents, 10) for part in (ours, theirs)]
    torch.testing.assert_close(*outputs, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("channels", "words"), [(9, "it is made for inpainting, and is no plain"), (8, "it is no plain")]
)
def test_a_network_for_another_task_is_refused_before_it_is_loaded(channels: int, words: str, tmp_path: Path) -> None:
    pipeline = small_pipeline()
    pipeline.register_modules(unet=UNet2DConditionModel.from_config({**pipeline.unet.config, "in_channels": channels}))
    pipeline.save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace('"StableDiffusionPipeline"', '"StableDiffusionInpaintPipeline"'))
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    message = refusal(tmp_path)
    assert message.startswith(
        f"generator.model={tmp_path} is not allowed: its network takes {channels} channels, not the "
    )
    assert words in message


def test_a_class_of_another_task_is_refused(tmp_path: Path) -> None:
    for name in ("StableDiffusionInstructPix2PixPipeline", "StableDiffusionUpscalePipeline", "FluxPipeline"):
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
        assert f"it is a {name}; one of StableDiffusionPipeline, " in refusal(tmp_path)


def test_a_variant_alone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_pipeline().save_pretrained(tmp_path, variant="fp16")
    message = refusal(tmp_path)
    assert message.endswith("has only weights of the variant fp16: add generator.variant=fp16")
    assert load(tmp_path, "generator.variant=fp16").resolution == 32
    hub = Hub({"tests/fp16": {"main": tmp_path}})
    with served(hub):
        send_downloads_to(hub.url, monkeypatch)
        message = refusal("tests/fp16")
        assert (
            message == "generator.model=tests/fp16: it has only weights of the variant fp16: add generator.variant=fp16"
        )
        assert load("tests/fp16", "generator.variant=fp16").resolution == 32
    forget()


def test_a_part_without_the_variant_is_loaded_without_it(tmp_path: Path) -> None:
    small_pipeline().save_pretrained(tmp_path, variant="fp16")
    pipeline = small_pipeline()
    pipeline.vae.save_pretrained(tmp_path / "vae")
    (tmp_path / "vae" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    assert load(tmp_path, "generator.variant=fp16").resolution == 32


PARTS = ("unet/diffusion_pytorch_model", "text_encoder/model", "vae/diffusion_pytorch_model")
DAMAGES = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n", "it is a git-lfs pointer"),
    "empty": (b"", "it is empty"),
    "junk": (b"404 not found" * 9, "it is no safetensors file"),
    "page": (b"<html>404</html>" * 9, "it is a web page, not the file itself"),
    "half": (None, "it is cut short: "),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_file_is_named_with_its_part(part: str, damage: str, tmp_path: Path) -> None:
    small_pipeline().save_pretrained(tmp_path)
    file, (content, words) = tmp_path / f"{part}.safetensors", DAMAGES[damage]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if content is None else content)
    assert refusal(tmp_path).startswith(
        f"generator.model={tmp_path} is no complete pipeline: {part}.safetensors: {words}"
    )


def test_a_checkpoint_that_is_cut_short_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(original_names(small_pipeline()), file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert refusal(file).startswith(f"generator.model={file} cannot be read: it is cut short: ")


def test_a_missing_file_or_part_is_named(tmp_path: Path) -> None:
    small_pipeline().save_pretrained(tmp_path)
    weights = tmp_path / "text_encoder" / "model.safetensors"
    weights.rename(tmp_path / "text_encoder" / "pytorch_model.bin")
    assert "its part text_encoder has no .safetensors weights, only pytorch_model.bin, which" in refusal(tmp_path)
    for file in (tmp_path / "text_encoder").iterdir():
        file.unlink()
    assert refusal(tmp_path).endswith("its part text_encoder is missing")


def wide_text(pipeline):
    config = _text_config(pipeline.tokenizer)
    config.hidden_size = 24
    pipeline.text_encoder = CLIPTextModel(config)


def wide_projection(pipeline):
    config = _text_config(pipeline.tokenizer_2)
    config.projection_dim = 24
    pipeline.text_encoder_2 = CLIPTextModelWithProjection(config)


def short_text(pipeline):
    config = _text_config(pipeline.tokenizer)
    config.max_position_embeddings = 20
    pipeline.text_encoder = CLIPTextModel(config)


@pytest.mark.parametrize(
    ("build", "change", "words"),
    [
        (small_pipeline, wide_text, "its network takes text of 16 numbers, and its text encoders give 24"),
        (small_xl_pipeline, wide_text, "its network takes text of 32 numbers, and its text encoders give 40"),
        (
            small_xl_pipeline,
            wide_projection,
            "its network takes pooled text of 16 numbers, and its text encoders give 24",
        ),
        (
            small_sd3_pipeline,
            wide_projection,
            "its network takes pooled text of 32 numbers, and its text encoders give 40",
        ),
        (small_pipeline, short_text, "its tokenizer gives 48 tokens, and its text_encoder takes 20"),
        (
            small_xl_pipeline,
            lambda pipeline: setattr(pipeline, "text_encoder", None),
            "its text_encoder or the tokenizer of it is missing",
        ),
    ],
)
def test_parts_that_do_not_suit_each_other_are_one_line_before_the_work_begins(
    build: Callable, change: Callable, words: str
) -> None:
    pipeline = build()
    change(pipeline)
    with pytest.raises(UserError) as caught:
        LatentDiffusion(pipeline, 4, 1.0, 32, model="a/b")
    assert str(caught.value).startswith("generator.model=a/b is not allowed: its ")
    assert words in str(caught.value)


def test_an_encoder_that_does_not_know_a_token_is_one_line() -> None:
    pipeline = small_pipeline()
    generator = LatentDiffusion(pipeline, 4, 1.0, 32)
    pipeline.text_encoder.resize_token_embeddings(300)
    with pytest.raises(UserError, match=r"a tokenizer gives the token \d+ for these prompts, and .* knows 300 tokens"):
        generator.check_prompts([["a photo of a cat."]], ("cat",))
    with pytest.raises(
        UserError, match=r"the pad_token of its tokenizer is number \d+, and its text_encoder knows 300"
    ):
        LatentDiffusion(pipeline, 4, 1.0, 32)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (".", "it has no model_index.json; a pipeline is in {root}/snapshots/abc"),
        ("snapshots", "it has no model_index.json; a pipeline is in {root}/snapshots/abc"),
        ("snapshots/abc/unet", "it is one part of the pipeline {root}/snapshots/abc, which is what to give"),
        (
            "snapshots/abc/unet/w.safetensors",
            "it is one part of the pipeline {root}/snapshots/abc, which is what to give",
        ),
        ("controlnet", "it has no model_index.json; it is a ControlNetModel alone, not a whole pipeline"),
        ("comfy", "it has no model_index.json; to use a checkpoint, give the file: {root}/comfy/model.safetensors"),
        ("empty", "is no diffusers pipeline: it has no model_index.json"),
        ("old.ckpt", "a folder, a hub id or one .safetensors file; a .ckpt file is a pickle, which could run code"),
    ],
)
def test_a_folder_too_high_or_too_low_is_answered_with_the_right_one(given: str, words: str, tmp_path: Path) -> None:
    root = tmp_path / "hf"
    for name in ("snapshots/abc/unet", "controlnet", "comfy", "empty"):
        (root / name).mkdir(parents=True)
    (root / "snapshots/abc/model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (root / "controlnet/config.json").write_text('{"_class_name": "ControlNetModel"}')
    for name in ("snapshots/abc/unet/w.safetensors", "comfy/model.safetensors"):
        save_file({"x": torch.zeros(1)}, root / name)
    (root / "old.ckpt").write_bytes(b"PK")
    with pytest.raises(UserError) as caught:
        local_kind(str(root / given))
    assert str(caught.value).endswith(words.format(root=root))
