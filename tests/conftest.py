"""What tests share: a pipeline with random weights, a small image folder, composed configurations."""

import os
import tempfile

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="distdiff-tests-")

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from distdiff.config.composition import compose_jobs
from distdiff.config.validation import validate
from distdiff.pretraining.networks import build_autoencoder, build_scheduler, build_text_encoder, build_unet
from distdiff.pretraining.tokenizer import build_tokenizer

ROOT = Path(__file__).resolve().parents[1]
SMALL = OmegaConf.create(
    {
        "image_size": 32,
        "latent_channels": 4,
        "autoencoder_channels": [8, 8, 8],
        "unet_channels": [16, 16],
        "unet_layers_per_block": 1,
        "text_width": 16,
        "text_layers": 1,
    }
)


def small_pipeline(prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline with random weights, 32x32 images and 8x8 latents."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(["a photo of a cat."], num_merges=10)
    scheduler = DDIMScheduler.from_config(build_scheduler().config, prediction_type=prediction_type)
    return StableDiffusionPipeline(
        build_autoencoder(SMALL),
        build_text_encoder(SMALL, tokenizer),
        tokenizer,
        build_unet(SMALL),
        scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    small_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, one called `train`, one file called `x_val_2.png`."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, files in {
        "cat": ["a.png", "b.png", "c.png", "d.png", "e.png"],
        "train": ["x_val_2.png", "test.png", "sub/1.png", "y.png", "z.png"],
    }.items():
        for file in files:
            path = root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture
def small_run(pipeline_folder: Path, tmp_path: Path) -> list[str]:
    """Overrides of a run that takes seconds: a random pipeline, few steps, everything below `tmp_path`."""
    return [
        "generator=local",
        f"generator.model={pipeline_folder}",
        "generator.resolution=32",
        "generator.num_steps=6",
        "generator.cfg_scale=1",
        "expansion.factor=2",
        "expansion.batch_size=8",
        "train.steps=3",
        "logger=none",
        f"paths.output_dir={tmp_path}/outputs",
    ]


def compose(command: str, overrides: list[str]) -> DictConfig:
    """The validated configuration of one job."""
    (config,) = list(compose_jobs(command, overrides, multirun=False))
    return validate(config)
