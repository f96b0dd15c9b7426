"""Studies and sweeps over guidance denoise up to the first guided step once, and make the images of single expansions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import compose
from scripts import run_here
from small_expansion import contents

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.commands.expand import expand
from distdiff.commands.preview import preview
from distdiff.commands.run import run
from distdiff.data.datasets import load_dataset
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.generators import Generators
from distdiff.generator.beginnings import OF_PROCESS, Beginning, Beginnings
from distdiff.generator.families.stable_diffusion import StableDiffusion

STEPS, BEFORE = 6, 4  # of an image under SETTINGS, and those before the first guided one
SETTINGS = ["expansion.strength=1", "dataset.per_class=null", "dataset.max_images=10"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples the network was given, each time that it was asked."""
    output, sizes = StableDiffusion.output, []

    def counted(family: StableDiffusion, latents, *given):
        sizes.append(len(latents))
        return output(family, latents, *given)

    monkeypatch.setattr(StableDiffusion, "output", counted)
    return sizes


def remember_long_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is found has taken 1000 seconds."""
    found_before = Beginnings.find

    def find(kept: Beginnings, key: str, user: object) -> Beginning | None:
        found = found_before(kept, key, user)
        return None if found is None else Beginning(found.latents, 1000.0)

    monkeypatch.setattr(Beginnings, "find", find)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def folders_of(outputs: Path) -> list[Path]:
    return [path for path in (outputs / "expanded").iterdir() if path.is_dir()]


def test_a_study_makes_the_images_of_single_expansions_and_shares_their_first_steps(
    small_run: list[str], asked: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The rate of a row is that of making it alone: what a row was spared counts as its time."""
    alone = {}
    for guidance in ("none", "direct", "mpgd"):
        place = tmp_path / guidance
        place.mkdir()
        typed = [*small_run, *SETTINGS, f"guidance={guidance}", f"paths.output_dir={place}/outputs"]
        alone[guidance] = contents(expand(compose("expand", typed), place))
    assert len(alone["direct"]) == 20
    batches = 3  # of 8, 8 and 4
    assert len(asked) == 3 * batches * STEPS

    remember_long_times(monkeypatch)
    asked.clear()
    small = [
        "study.seeds=1",
        "study.methods=[none,direct,mpgd]",
        "measure.judge_steps=3",
        "train.steps=2",
        "measure.metrics=[coverage]",
    ]
    run(compose("run", [*small_run, *SETTINGS, "guidance=direct", *small]), tmp_path)
    assert len(asked) == 3 * batches * STEPS - 2 * batches * BEFORE
    for guidance, expected in alone.items():
        (folder,) = (tmp_path / "outputs/expanded").glob(f"*-{guidance}-*")
        assert contents(folder) == expected, guidance
        assert (manifest(folder)["timing"]["expand"] > 1000 * batches) == (guidance != "none")


def test_a_sweep_over_strengths_shares_the_first_steps_and_a_single_expansion_keeps_nothing(
    small_run: list[str], asked: list[int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    typed = [*small_run, *SETTINGS, "guidance=direct", "expansion.factor=1", "expansion.batch_size=10"]
    ended = run_here("expand", [*typed, "-m", "guidance.rho=1,2,3"], capsys)
    assert ended.status == 0, ended.err
    assert len(asked) == 3 * STEPS - 2 * BEFORE
    folders = folders_of(tmp_path / "outputs")
    made = {manifest(folder)["ingredients"]["guidance"]["rho"]: contents(folder) for folder in folders}
    assert sorted(made) == [1, 2, 3]

    before = list(OF_PROCESS.kept)
    asked.clear()
    ended = run_here("expand", [*typed, "guidance.rho=2", f"paths.output_dir={tmp_path}/again"], capsys)
    assert ended.status == 0, ended.err
    assert len(asked) == STEPS
    assert list(OF_PROCESS.kept) == before
    (folder,) = folders_of(tmp_path / "again")
    assert contents(folder) == made[2]


def test_a_preview_shares_the_first_steps_of_all_strengths_of_guidance_and_estimates_the_time_without_it(
    small_run: list[str], asked: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remember_long_times(monkeypatch)
    shown = ["preview.sources=1", "preview.strengths=[1]", "preview.rhos=[0,5,9]", "expansion.batch_size=1"]
    (tmp_path / "preview").mkdir()
    preview(compose("preview", [*small_run, *SETTINGS, "guidance=direct", *shown]), tmp_path / "preview")
    assert len(asked) == 2 * STEPS + 2 * (STEPS - BEFORE)  # three strengths, and the batch whose time is taken
    estimate = json.loads((tmp_path / "preview/preview.json").read_text())["estimate"]
    assert estimate["seconds_per_image"] < 100


def test_the_probe_of_memory_neither_uses_nor_keeps_anything(
    small_run: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = compose("expand", [*small_run, *SETTINGS, "guidance=direct"])
    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    job = Assembly(config, StageCache(config.paths.cache_dir), Generators(keeps_beginnings=True)).job(data, config.seed)
    synthesizer = job.synthesizer("test")
    probed = []

    def probe(config, synthesizer, items, device) -> int:
        probed.append(len(synthesizer(items).images))
        return 8

    monkeypatch.setattr("distdiff.expansion.job.batch_size_for", probe)
    assert job.batch_size(job.plan, np.arange(len(job.plan)), synthesizer) == 8
    assert probed == [2]
    assert not OF_PROCESS.kept
    synthesizer([job.plan[0]])
    assert len(OF_PROCESS.kept) == 1
