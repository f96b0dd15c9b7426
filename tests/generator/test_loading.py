"""What a generator can be loaded from, and what can be added to it."""

from pathlib import Path

import pytest
import torch
from conftest import compose
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from omegaconf import OmegaConf
from original_checkpoint import original_names
from peft import LoraConfig, get_peft_model_state_dict
from pipelines import small_pipeline, small_sd3_pipeline, small_xl_pipeline, tiny_autoencoder
from safetensors.torch import save_file

from distdiff.errors import UserError
from distdiff.expansion.generators import Generators
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.pipelines import fingerprint, load_generator


def load(model: Path, *overrides: str) -> LatentDiffusion:
    config = compose("expand", ["generator=local", f"generator.model={model}", "generator.resolution=32", *overrides])
    return load_generator(config.generator)


def identity(model: Path, *overrides: str) -> dict[str, object]:
    config = compose("expand", ["generator=local", f"generator.model={model}", "generator.resolution=32", *overrides])
    return fingerprint(config.generator)


@pytest.mark.parametrize(("build", "name"), [(small_xl_pipeline, "unet"), (small_sd3_pipeline, "transformer")])
def test_every_family_comes_back_from_its_folder(build, name: str, tmp_path: Path) -> None:
    pipeline = build()
    pipeline.save_pretrained(tmp_path)
    generator = load(tmp_path)
    for ours, theirs in zip(generator.network.parameters(), getattr(pipeline, name).parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
    assert len(generator.embed(["a cat"]).positive) == 1


def test_stable_diffusion_3_can_leave_t5_on_disk(tmp_path: Path) -> None:
    small_sd3_pipeline().save_pretrained(tmp_path)
    assert load(tmp_path, "generator.use_t5=false").family.pipeline.text_encoder_3 is None


def test_a_lora_is_added_with_its_scale(pipeline_folder: Path, tmp_path: Path) -> None:
    """Oracle: W + scale · B A, for one layer by hand (α = r, as files without an α mean)."""
    pipeline = small_pipeline()
    torch.manual_seed(7)
    pipeline.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(tmp_path, get_peft_model_state_dict(pipeline.unet))
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    adapted = pipeline.unet.get_submodule(layer)
    update = adapted.lora_B["default"].weight @ adapted.lora_A["default"].weight
    plain, halved = load(pipeline_folder), load(pipeline_folder, f"generator.lora=['{tmp_path}:0.5']")
    before, after = (generator.network.get_submodule(layer).weight for generator in (plain, halved))
    torch.testing.assert_close(after, before + 0.5 * update, atol=1e-6, rtol=0)
    names = [name for name, _ in halved.network.named_parameters()]
    assert names == [name for name, _ in plain.network.named_parameters()]  # nothing of the adapter is left
    assert identity(pipeline_folder) != identity(pipeline_folder, f"generator.lora=['{tmp_path}:0.5']")


def test_a_learned_word_is_added(pipeline_folder: Path, tmp_path: Path) -> None:
    vector = torch.randn(1, 16)
    save_file({"<blob>": vector}, tmp_path / "blob.safetensors")
    plain = load(pipeline_folder)
    generator = load(pipeline_folder, f"generator.textual_inversion=[{tmp_path}/blob.safetensors]")
    pipeline = generator.family.pipeline
    token = pipeline.tokenizer.convert_tokens_to_ids("<blob>")
    torch.testing.assert_close(pipeline.text_encoder.get_input_embeddings().weight[token], vector[0])
    new, old = (part.embed(["a photo of a <blob>."]).positive.tokens for part in (generator, plain))
    assert (new - old).abs().max() > 1e-3


def test_stable_diffusion_xl_takes_a_word_for_both_encoders(tmp_path: Path) -> None:
    small_xl_pipeline().save_pretrained(tmp_path / "xl")
    vectors = {"clip_l": torch.randn(1, 16), "clip_g": torch.randn(1, 16)}
    save_file(vectors, tmp_path / "blob.safetensors")
    pipeline = load(tmp_path / "xl", f"generator.textual_inversion=[{tmp_path}/blob.safetensors]").family.pipeline
    for tokenizer, encoder, name in (
        (pipeline.tokenizer, pipeline.text_encoder, "clip_l"),
        (pipeline.tokenizer_2, pipeline.text_encoder_2, "clip_g"),
    ):
        token = tokenizer.convert_tokens_to_ids("<blob>")
        torch.testing.assert_close(encoder.get_input_embeddings().weight[token], vectors[name][0])


def test_a_checkpoint_of_the_original_repository_is_the_same_generator(pipeline_folder: Path, tmp_path: Path) -> None:
    pipeline = small_pipeline()
    save_file(original_names(pipeline), tmp_path / "model.safetensors")
    generator = load(tmp_path / "model.safetensors", f"generator.checkpoint_config={pipeline_folder}")
    expected = load(pipeline_folder)
    assert identity(tmp_path / "model.safetensors", f"generator.checkpoint_config={pipeline_folder}") != identity(
        tmp_path / "model.safetensors"
    )
    embedded = [part.embed(["a cat"]) for part in (generator, expected)]
    torch.testing.assert_close(embedded[0].positive.tokens, embedded[1].positive.tokens)
    latents = torch.randn(1, 4, 8, 8)
    outputs = [
        part.denoiser(prompts).predict(latents, 10)
        for part, prompts in zip((generator, expected), embedded, strict=True)
    ]
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(generator.decode(latents), expected.decode(latents))
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(generator.encode(images).mean, expected.encode(images).mean)


def test_a_guidance_decoder_is_loaded_and_must_fit(pipeline_folder: Path, tmp_path: Path) -> None:
    tiny_autoencoder(4).save_pretrained(tmp_path / "tiny")
    tiny_autoencoder(16).save_pretrained(tmp_path / "wide")
    generator = load(pipeline_folder, f"generator.guidance_decoder={tmp_path}/tiny")
    assert isinstance(generator.guidance_decoder, AutoencoderTiny)
    with pytest.raises(UserError, match="it decodes 16 latent channels, the generator has 4"):
        load(pipeline_folder, f"generator.guidance_decoder={tmp_path}/wide")


def test_half_precision_is_the_networks_alone(pipeline_folder: Path) -> None:
    generator = load(pipeline_folder, "generator.dtype=float16")
    assert (generator.dtype, generator.latent_dtype) == (torch.float16, torch.float32)
    assert generator.encode(torch.rand(1, 3, 32, 32)).mean.dtype == torch.float32


def test_an_overflowing_autoencoder_runs_in_float32(tmp_path: Path) -> None:
    small_xl_pipeline().save_pretrained(tmp_path)
    generator = load(tmp_path, "generator.dtype=float16")
    assert (generator.dtype, generator.vae.dtype) == (torch.float16, torch.float32)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("generator.lora=[/nowhere:1]", "generator.lora=/nowhere: no such file or folder"),
        ("generator.textual_inversion=[/nowhere]", "generator.textual_inversion=/nowhere: no such file or folder"),
        ("generator.guidance_decoder=/nowhere", "generator.guidance_decoder=/nowhere: no such file or folder"),
        ("generator.lora=[{junk}]", "cannot be loaded"),
        ("generator.lora=['{junk}:inf']", "is not allowed: a finite scale behind the colon"),
        ("generator.model={number}", "cannot be read: it is no safetensors file"),
        ("generator.model={inpainting}", "it is no text-to-image checkpoint of Stable"),
        ("generator.model={lonely}", "with generator.checkpoint_config=null, which is to name the folder"),
        ("generator.negative_prompt=dog generator.cfg_scale=1", "it takes classifier-free guidance"),
        ("generator.textual_inversion=[{junk}]", "cannot be loaded"),
        ("generator.guidance_decoder={junk}", "no complete AutoencoderTiny"),
        ("generator.model={junk}", "it is no text-to-image checkpoint of Stable"),
        ("generator.model={text}", "a folder, a hub id or one .safetensors file"),
        ("generator.model={foreign}", "it is a FluxPipeline; one of StableDiffusionPipeline, "),
        ("generator.scheduler=flow_euler", "for a Stable Diffusion model, one of auto, ddim, "),
    ],
)
def test_what_cannot_be_loaded_is_one_line(override: str, words: str, pipeline_folder: Path, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "junk.safetensors")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    (tmp_path / "number.safetensors").write_bytes((1).to_bytes(8, "little") + b"7")
    first = "model.diffusion_model.input_blocks.0.0.weight"
    for name, channels in (("inpainting", 9), ("lonely", 4)):
        save_file({first: torch.zeros(1, channels, 3, 3)}, tmp_path / f"{name}.safetensors")
    places = {name: tmp_path / f"{name}.safetensors" for name in ("number", "inpainting", "lonely")}
    places |= {"junk": tmp_path / "junk.safetensors", "text": tmp_path / "notes.txt", "foreign": tmp_path / "flux"}
    with pytest.raises(UserError) as caught:
        load(pipeline_folder, *override.format(**places).split())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "words"),
    [("nobody/nothing", "hub cannot be reached"), ("{broken}", "is no complete pipeline: ")],
)
def test_a_generator_that_cannot_be_loaded_is_one_line(model: str, words: str, pipeline_folder, tmp_path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text((pipeline_folder / "model_index.json").read_text())
    config = compose("run", ["generator=local", f"generator.model={model.format(broken=broken)}"])
    with pytest.raises(UserError) as caught:
        load_generator(config.generator)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("resolution", "is_said"), [(16, True), (20, False), (32, False), (60, False), (64, True)])
def test_a_resolution_far_from_the_models_own_is_said_once(
    resolution: int, is_said: bool, pipeline_folder, capsys
) -> None:
    config = compose("expand", ["generator=local", f"generator.model={pipeline_folder}", "generator.resolution=32"])
    other = OmegaConf.merge(config.generator, {"resolution": resolution})
    generators = Generators()
    for keys in (other, config.generator, other):  # loaded anew each time
        generators.load(keys, torch.device("cpu"))
    said = f"generator.resolution={resolution}: this model is made for images of 32 pixels"
    assert capsys.readouterr().out.count(said) == is_said
