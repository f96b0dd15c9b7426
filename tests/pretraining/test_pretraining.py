"""A pipeline trained here is one that plain diffusers loads, and its tokenizer can spell anything."""

import pytest
import torch
from conftest import ROOT, compose
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

from distdiff.pretraining.pretrain import pretrain
from distdiff.pretraining.tokenizer import END, build_tokenizer

ASSET = ROOT / "distdiff" / "assets" / "tiny_digits"


@pytest.mark.parametrize("text", ["a photo of the digit 7.", "étrange – 新しい 🦉 class_name", "Übergröße", "a\ttab"])
def test_the_tokenizer_spells_any_text(text: str) -> None:
    tokenizer = build_tokenizer([f"a photo of the digit {i}." for i in range(10)])
    ids = tokenizer(text).input_ids
    body = ids[1:-1]
    assert tokenizer.convert_tokens_to_ids(END) not in body  # the unknown token: nothing may become it
    assert tokenizer.decode(body).replace(" ", "") == " ".join(text.lower().split()).replace(" ", "")


def test_known_words_are_one_token_each() -> None:
    tokenizer = build_tokenizer([f"a photo of the digit {i}." for i in range(10)])
    assert tokenizer.tokenize("photo of the digit") == ["photo</w>", "of</w>", "the</w>", "digit</w>"]


def test_pretraining_writes_a_pipeline_that_diffusers_loads(tmp_path) -> None:
    config = compose(
        "pretrain",
        [
            "dataset.num_images=200",
            "pretrain.autoencoder_steps=2",
            "pretrain.denoiser_steps=2",
            "pretrain.grid_every=2",
            "pretrain.autoencoder_channels=[8,8]",
            "pretrain.unet_channels=[16,16]",
            "logger=csv",
            f"paths.output_dir={tmp_path}",
        ],
    )
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- dataset.num_images=200\n- 'dataset.prompt_template=a {}'\n")
    folder = pretrain(config, tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a photo of the digit 3.", num_inference_steps=2, output_type="pt").images
    assert image.shape == (1, 3, 32, 32)
    assert (tmp_path / "samples-000002.png").is_file()
    card = (folder / "README.md").read_text()
    for words in (
        "font_digits",
        "pretrain.py dataset.num_images=200 'dataset.prompt_template=a {}'",
        "seed 0",
        "denoiser/validation_loss",
        "SHA-256",
    ):
        assert words in card


def test_the_embedded_generator_loads_and_runs_in_plain_diffusers() -> None:
    size = sum(path.stat().st_size for path in ASSET.rglob("*") if path.is_file())
    assert size <= 12 * 2**20
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(ASSET)
    pipeline.set_progress_bar_config(disable=True)
    source = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    image = pipeline("a photo of the digit 3.", source, strength=0.7, num_inference_steps=4, output_type="pt").images
    assert image.shape == (1, 3, 32, 32)
    assert torch.isfinite(image).all()
    assert image.std() > 0.01


def test_the_embedded_generators_card_matches_its_weights() -> None:
    import hashlib

    card = (ASSET / "README.md").read_text()
    weights = list(ASSET.rglob("*.safetensors"))
    assert len(weights) == 3
    for path in weights:
        assert hashlib.sha256(path.read_bytes()).hexdigest() in card
