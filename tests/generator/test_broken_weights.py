"""Whatever becomes of a model's or an adapter's files, one line says which file is broken, and why."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import compose_once
from damages import Reader, cases, check_said, made, whole
from diffusers import DiffusionPipeline
from original_checkpoint import original_names
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from pipelines import small_pipeline, tiny_autoencoder
from safetensors.torch import save_file

from distdiff.generator.config import check, step_counting
from distdiff.generator.learned_words import add_textual_inversions
from distdiff.generator.loras import add_loras
from distdiff.generator.pipelines import _load_guidance_decoder, fingerprint, load_generator

TARGETS = LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q"])


def pipeline(folder: Path) -> None:
    small_pipeline().save_pretrained(folder)


def sharded(folder: Path) -> None:
    small_pipeline().save_pretrained(folder, max_shard_size="30KB")


def checkpoint(folder: Path) -> None:
    small = small_pipeline()
    small.save_pretrained(folder / "config")
    save_file(original_names(small), folder / "model.safetensors")


def decoder(folder: Path) -> None:
    tiny_autoencoder(4).save_pretrained(folder / "decoder")


def adapters(folder: Path) -> None:
    network = get_peft_model(small_pipeline().unet, TARGETS)
    network.save_pretrained(folder / "peft")
    save_file(
        {
            name.replace("base_model.model", "unet"): weight
            for name, weight in get_peft_model_state_dict(network).items()
        },
        folder / "lora.safetensors",
    )
    save_file({"<one>": torch.randn(1, 16)}, folder / "blob.safetensors")
    torch.save({"<two>": torch.randn(1, 16)}, folder / "blob.bin")
    torch.save({"<three>": torch.randn(1, 16)}, folder / "blob.pt")


@functools.cache
def loaded() -> DiffusionPipeline:
    return DiffusionPipeline.from_pretrained(made(pipeline))


def reads(**keys: str | list[str]) -> Callable[[Path], None]:
    """Checks, identifies and loads a generator, as a command does. `{}` in a value stands for the folder."""

    def read(folder: Path) -> None:
        config = compose_once(
            "expand", ["generator=local", f"generator.model={made(pipeline)}", "generator.resolution=32"]
        )
        for key, value in keys.items():
            places = [item.format(folder) for item in ([value] if isinstance(value, str) else value)]
            config.generator[key] = places[0] if isinstance(value, str) else places
        check(config)
        step_counting(config.generator)
        fingerprint(config.generator)
        if "model" in keys:
            load_generator(config.generator)
        else:  # as `load_generator` does, with a pipeline that is loaded once
            _load_guidance_decoder(config.generator, 4)
            add_loras(loaded(), config.generator.lora)
            add_textual_inversions(loaded(), config.generator.textual_inversion)

    return read


MODEL = reads(model="{}")
SINGLE = reads(model="{}/model.safetensors", checkpoint_config="{}/config")
DECODER = reads(guidance_decoder="{}/decoder")
READERS = {
    "model_index.json": Reader(pipeline, "model_index.json", MODEL),
    "scheduler": Reader(pipeline, "scheduler/scheduler_config.json", MODEL, ("missing",)),
    "tokenizer.json": Reader(pipeline, "tokenizer/tokenizer.json", MODEL),
    "tokenizer_config.json": Reader(pipeline, "tokenizer/tokenizer_config.json", MODEL, ("missing", "other table")),
    "unet config": Reader(pipeline, "unet/config.json", MODEL),
    "vae config": Reader(pipeline, "vae/config.json", MODEL),
    "text config": Reader(pipeline, "text_encoder/config.json", MODEL),
    "unet": Reader(pipeline, "unet/diffusion_pytorch_model.safetensors", MODEL, ("missing",)),
    "vae": Reader(pipeline, "vae/diffusion_pytorch_model.safetensors", MODEL, ("missing",)),
    "text encoder": Reader(pipeline, "text_encoder/model.safetensors", MODEL, ("missing",)),
    "index": Reader(sharded, "unet/diffusion_pytorch_model.safetensors.index.json", MODEL, ("missing",)),
    "text index": Reader(sharded, "text_encoder/model.safetensors.index.json", MODEL, ("missing",)),
    "shard": Reader(sharded, "unet/diffusion_pytorch_model-00003-of-00016.safetensors", MODEL),
    "checkpoint": Reader(checkpoint, "model.safetensors", SINGLE, ("folder",)),
    "checkpoint_config index": Reader(checkpoint, "config/model_index.json", SINGLE),
    "checkpoint_config unet": Reader(checkpoint, "config/unet/config.json", SINGLE),
    "decoder config": Reader(decoder, "decoder/config.json", DECODER),
    "decoder": Reader(decoder, "decoder/diffusion_pytorch_model.safetensors", DECODER, ("missing",)),
    "lora": Reader(adapters, "lora.safetensors", reads(lora=["{}/lora.safetensors:0.5"]), ("folder",)),
    "peft folder": Reader(adapters, "peft/adapter_model.safetensors", reads(lora=["{}/peft"]), ("folder", "missing")),
    "adapter_config.json": Reader(adapters, "peft/adapter_config.json", reads(lora=["{}/peft"])),
    "word .safetensors": Reader(
        adapters, "blob.safetensors", reads(textual_inversion=["{}/blob.safetensors"]), ("folder",)
    ),
    "word .bin": Reader(adapters, "blob.bin", reads(textual_inversion=["{}/blob.bin"]), ("folder",)),
    "word .pt": Reader(adapters, "blob.pt", reads(textual_inversion=["{}/blob.pt"]), ("folder",)),
}


@pytest.mark.parametrize("name", READERS)
def test_whole_weights_are_read(name: str, tmp_path: Path) -> None:
    whole(READERS[name], tmp_path / "given")
    READERS[name].read(tmp_path / "given")


@pytest.mark.parametrize(("name", "damage"), cases(READERS))
def test_a_broken_file_of_a_model_is_one_line_with_its_path_and_the_cause(
    name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_said(READERS[name], damage, tmp_path, capsys)
