"""`method=text2img`: what the family's own text-to-image pipeline draws, of a class and no source."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from diffusers import (
    LatentConsistencyModelPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from pipelines import FAMILIES, VALID
from small_expansion import small_jobs
from unguided import PROMPTS, ZeroEnergy, three_images

from distdiff.expansion.plan import ExpansionPlan
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.schedulers import build_scheduler
from distdiff.methods.item import WorkItem
from distdiff.methods.text2img import Text2Img

TEXT2IMG = {
    "sd": StableDiffusionPipeline,
    "sd_v": StableDiffusionPipeline,
    "sdxl": StableDiffusionXLPipeline,
    "sd3": StableDiffusion3Pipeline,
    "lcm": LatentConsistencyModelPipeline,
}
NUM_STEPS = 8


@pytest.fixture(scope="module")
def pipelines() -> dict:
    return {name: build() for name, build in FAMILIES.items()}


def planned(factor: int = 2) -> ExpansionPlan:
    return ExpansionPlan(three_images(), factor, 0.3, 5, method=Text2Img())


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
@pytest.mark.parametrize(("family", "scheduler"), VALID)
def test_images_are_those_of_the_familys_own_text_to_image_pipeline(pipelines, family, scheduler, cfg_scale) -> None:
    """Oracle: diffusers' pipeline with one generator an image, seeded as the plan says."""
    pipeline = pipelines[family]
    generator = LatentDiffusion(pipeline, NUM_STEPS, cfg_scale, 32, scheduler)
    items = list(planned())
    synthesizer = Text2Img().synthesizer(5, generator, generator.embed(PROMPTS), ZeroEnergy())
    assert len({synthesizer.group(item.strength) for item in items}) == 1
    components = {**pipeline.components, "scheduler": build_scheduler(scheduler, pipeline.scheduler.config)}
    options = {"requires_safety_checker": False} if family in ("sd", "sd_v", "lcm") else {}
    theirs = TEXT2IMG[family](**components, **options)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(**arguments(items, cfg_scale)).images
    torch.testing.assert_close(synthesizer(items).images, expected, atol=1e-5, rtol=0)


def arguments(items: Sequence[WorkItem], cfg_scale: float) -> dict[str, object]:
    return {
        "prompt": [PROMPTS[item.label] for item in items],
        "height": 32,
        "width": 32,
        "num_inference_steps": NUM_STEPS,
        "guidance_scale": cfg_scale,
        "generator": [torch.Generator().manual_seed(item.seed) for item in items],
        "output_type": "pt",
    }


def test_a_class_gets_as_many_images_as_its_sources_would_get_copies_and_a_larger_factor_appends() -> None:
    items = list(planned(factor=3))
    assert [item.label for item in items].count(0) == 6  # two cats, one dog
    assert sorted(item.file_name for item in items if item.label == 0) == [f"cat/prompt__{i:04d}.png" for i in range(6)]
    assert all(item.source is item.position is None and item.sources == () and item.strength == 1.0 for item in items)
    assert items[: len(planned(2))] == list(planned(2))
    assert len({item.seed for item in items}) == 9
    rows = [{"class_name": "cat", "copy": 5}, {"class_name": "dog", "copy": 0}]
    assert planned(1).factor_with(rows) == 3


def test_an_expansion_without_sources_is_written_and_read(small_run, image_folder: Path, tmp_path: Path) -> None:
    import datasets

    job = small_jobs(small_run, image_folder, tmp_path)("method=text2img", "expansion.factor=1")
    job.run("test")
    rows = pyarrow.parquet.read_table(job.path / "metadata.parquet").to_pylist()
    assert {row["source"] for row in rows} == {None}
    assert {tuple(row["sources"]) for row in rows} == {()}
    assert {row["strength"] for row in rows} == {1.0}
    assert all(np.isfinite([row["energy_before"], row["energy_after"]]).all() for row in rows)
    loaded = datasets.load_dataset("imagefolder", data_dir=str(job.path), split="train")
    names = [loaded.features["label"].int2str(row["label"]) for row in loaded]
    assert sorted(names) == sorted(row["class_name"] for row in rows)
    again = small_jobs(small_run, image_folder, tmp_path)("method=text2img", "expansion.factor=1", "guidance.rho=7")
    assert again.fingerprint == job.fingerprint  # it reads no guidance
