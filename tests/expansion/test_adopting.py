"""Rows of a study that differ in their selection alone make no image twice."""

from pathlib import Path

import pyarrow.parquet
import pytest
from conftest import compose

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.job import ExpansionJob
from distdiff.methods.img2img import Img2ImgSampler
from distdiff.store.candidates import CandidateStore
from distdiff.store.comparison import content_differences


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The names of images as the sampler makes them."""
    names: list[str] = []
    forward = Img2ImgSampler.forward

    def counted(self, items):
        names.extend(item.file_name for item in items)
        return forward(self, items)

    monkeypatch.setattr(Img2ImgSampler, "forward", counted)
    return names


@pytest.fixture
def job(small_run, image_folder):
    def make(*overrides: str) -> ExpansionJob:
        given = [*small_run, "dataset=imagefolder", f"dataset.root={image_folder}", "guidance=none"]
        config = compose("expand", [*given, "expansion.strength={low:0.5,high:0.9}", *overrides])
        data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
        return Assembly(config, StageCache(config.paths.cache_dir)).job(data, config.seed)

    return make


@pytest.mark.parametrize("storage", ["imagefolder", "parquet"])
def test_candidates_come_from_a_row_without_a_selection_and_the_other_way_round(
    job, made: list[str], tmp_path: Path, storage: str
) -> None:
    keys = [f"expansion.format={storage}", "expansion.shard_size=4"]
    job("expansion.factor=1", *keys).run("none")
    chosen = job("expansion.factor=1", "selection=energy", *keys)
    chosen.run("none+energy")
    assert len(made) == len(set(made)) == 12  # 6 sources, 2 candidates each, 6 of them adopted
    job("expansion.factor=2", *keys).run("none")
    assert len(made) == 12  # all of it is among the candidates
    scratch = job("expansion.factor=1", "selection=energy", f"expansion.output_dir={tmp_path}/scratch", *keys)
    scratch.run("none+energy")
    assert len(made) == 24  # a directory that the user names is made on its own
    assert content_differences(chosen.path, scratch.path) == []


def test_nothing_is_adopted_that_was_made_in_another_way(job, made: list[str]) -> None:
    job("expansion.factor=1").run("none")
    for other in ("generator.cfg_scale=2", "expansion.image_format=webp", "seed=1"):
        made.clear()
        job("expansion.factor=1", "selection=energy", other).run("other")
        assert len(made) == 12, other


def test_another_factor_of_a_selection_has_a_directory_of_its_own_and_makes_only_what_is_new(job, made) -> None:
    first, larger = (job(f"expansion.factor={factor}", "selection=energy") for factor in (1, 2))
    assert first.path != larger.path
    first.run("small")
    files = {path: path.read_bytes() for path in first.path.glob("*/*.png")}
    larger.run("large")
    assert len(made) == len(set(made)) == 24
    assert {path: path.read_bytes() for path in files} == files


def test_images_that_another_process_is_moving_are_made_instead(job, made: list[str], monkeypatch) -> None:
    job("expansion.factor=1").run("none")
    reader = CandidateStore.reader

    def vanishing(self, rows):
        read = reader(self, rows)
        return lambda index: read(index) if index < 2 else (self.path / "gone").read_bytes()

    monkeypatch.setattr(CandidateStore, "reader", vanishing)
    made.clear()
    with monkeypatch.context() as patch:
        patch.setattr("distdiff.store.candidates.BATCH", 1)
        chosen = job("expansion.factor=1", "selection=energy")
        chosen.examiner = None
        with pytest.raises(TypeError):  # of the examiner that is missing: all candidates were made before
            chosen.run("none+energy")
    assert len(made) == 10  # of 12


def test_rows_of_another_name_and_equal_content_share_their_images(job, made: list[str]) -> None:
    first = job("expansion.factor=1")
    first.run("none")
    made.clear()
    config, data = first.config, few_shot_training_set(first.config, load_dataset(first.config.dataset).train, 0)
    second = Assembly(config, StageCache(config.paths.cache_dir)).job(data, 0, "control")
    second.run("control")
    assert made == []
    assert second.path != first.path
    tables = [pyarrow.parquet.read_table(path / "metadata.parquet") for path in (first.path, second.path)]
    assert tables[0].equals(tables[1])
