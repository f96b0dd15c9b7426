"""Copies of small pipelines on disk, whose files a test may change."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import compose
from pipelines import small_pipeline, small_sd3_pipeline, small_xl_pipeline

from distdiff.errors import UserError
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.pipelines import load_generator

ABSENT = object()
BUILD = {"sd": small_pipeline, "sdxl": small_xl_pipeline, "sd3": small_sd3_pipeline}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for family, build in BUILD.items():
        folders[family] = tmp_path_factory.mktemp(family)
        build().save_pretrained(folders[family])
    return folders


@pytest.fixture
def folder(saved: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copies a small pipeline of a family, so that a test may change its files."""
    return lambda family: Path(shutil.copytree(saved[family], tmp_path / family))


def load(model: Path) -> LatentDiffusion:
    given = ["generator=local", f"generator.model='{model}'", "generator.resolution=32", "generator.num_steps=3"]
    return load_generator(compose("expand", given).generator)


def image(generator: LatentDiffusion) -> torch.Tensor:
    """An image of three steps from fixed noise."""
    noise = torch.randn(1, *generator.latent_shape, generator=torch.Generator().manual_seed(2))
    denoiser = generator.denoiser(generator.embed(["a photo of a cat."]), 1.0, [torch.Generator().manual_seed(3)])
    latents = denoiser.pure_noise(noise, 0)
    with torch.no_grad():
        for step in range(3):
            latents = denoiser.advance(latents, denoiser.predict(latents, step), step)
        return generator.decode(latents)


def change(file: Path, **values: object) -> None:
    content = json.loads(file.read_text())
    for key, value in values.items():
        content.pop(key, None)
        if value is not ABSENT:
            content[key] = value
    file.write_text(json.dumps(content))


def refusal(model: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)
