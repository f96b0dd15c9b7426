"""What the tests in tests/gpu run on the device of `--device`: small ones on the CPU, larger ones on a card."""

from pathlib import Path

import pytest
import torch
from conftest import compose

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.commands.expand import expand
from distdiff.data.datasets import load_dataset
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.job import ExpansionJob


def needs_a_card(device: torch.device, reason: str) -> None:
    """Skips a test that shows nothing on the CPU."""
    if device.type != "cuda":
        pytest.skip(f"{reason}: --device cuda, on a machine with a GPU")


RANDOM = ("generator=random", "generator.resolution=32")  # a generator whose images nobody looks at


def trainer(device: torch.device) -> str:
    return "trainer=gpu" if device.type == "cuda" else "trainer=cpu"


def short(device: torch.device, place: Path, *overrides: str) -> list[str]:
    """Overrides of an expansion of ten digits in a few steps, with everything below `place`."""
    usual = ["dataset.per_class=1", "generator.num_steps=4", "generator.dtype=float32", "expansion.factor=1"]
    usual += ["encoder.guide.steps=3", "logger=none", f"paths.output_dir={place}/outputs", trainer(device)]
    return [*usual, *overrides]


def job(device: torch.device, place: Path, *overrides: str) -> ExpansionJob:
    config = compose("expand", short(device, place, *overrides))
    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    return Assembly(config, StageCache(config.paths.cache_dir)).job(data, config.seed)


def expanded(device: torch.device, place: Path, title: str, *overrides: str) -> Path:
    """The folder of an expansion; those below one `place` share their guide, prototypes, latents and prompts."""
    given = short(device, place, f"expansion.output_dir={place}/{title}", *overrides)
    run = place / f"run-{title}"
    run.mkdir()
    return expand(compose("expand", given), run)
