"""The metadata's `prompt` is the sentence that the image was made with."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow.parquet
import pytest
from conftest import compose
from standin import SIZE, StandIn, interrupted, standin_job

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.commands.expand import expand
from distdiff.data.datasets import load_dataset
from distdiff.expansion.assembly import Assembly
from distdiff.store.filtering import RowFilter
from distdiff.store.reading import read_expanded

FORMATS = ["imagefolder", "webdataset", "parquet"]


def rows_of(path: Path) -> list[dict]:
    return pyarrow.parquet.read_table(path / "metadata.parquet").to_pylist()


def test_the_sentence_in_the_metadata_is_the_one_that_was_embedded(small_run, image_folder, tmp_path: Path) -> None:
    """Oracle: expansions whose template is one of the sentences, an image at a time: the same bytes."""
    templates = ["a {}", "the {} on a hill"]
    (tmp_path / "prompts.json").write_text(json.dumps({name: templates for name in ("cat", "train")}))
    keys = [*small_run, "dataset=imagefolder", f"dataset.root={image_folder}", "guidance=none"]
    keys += ["expansion.batch_size=1", "generator.cfg_scale=4"]
    drawn, *alone = (
        expand(compose("expand", [*keys, key]), tmp_path)
        for key in (
            f"dataset.prompts_file={tmp_path}/prompts.json",
            *(f"dataset.prompt_template='{template}'" for template in templates),
        )
    )
    numbers, told_apart = set(), False
    for row in rows_of(drawn):
        sentences = [template.replace("{}", row["class_name"]) for template in templates]
        numbers.add(number := sentences.index(row["prompt"]))
        made = (drawn / row["file_name"]).read_bytes()
        assert made == (alone[number] / row["file_name"]).read_bytes()
        told_apart |= made != (alone[number - 1] / row["file_name"]).read_bytes()
    assert numbers == {0, 1}
    assert told_apart
    for path, template in zip(alone, templates, strict=True):
        assert all(row["prompt"] == template.replace("{}", row["class_name"]) for row in rows_of(path))
    wanted = rows_of(drawn)[0]["prompt"]
    chosen = read_expanded(drawn, where=RowFilter("train.where", f"prompt == '{wanted}'"))
    assert set(chosen.keys) == {row["file_name"] for row in rows_of(drawn) if row["prompt"] == wanted}


def test_what_is_made_without_a_generator_has_no_prompt(small_run, image_folder) -> None:
    given = [item for item in small_run if not item.startswith("encoder.")]
    config = compose("expand", [*given, "dataset=imagefolder", f"dataset.root={image_folder}", "method=augmentation"])
    cache = StageCache(config.paths.cache_dir)
    data = few_shot_training_set(config, load_dataset(config.dataset).train, 0)
    job = Assembly(config, cache).job(data, 0)
    job.run("test")
    assert "prompt" not in pyarrow.parquet.read_schema(job.path / "metadata.parquet").names


class WithPrompts(StandIn):
    def forward(self, items):
        made = super().forward(items)
        return replace(made, columns=made.columns | {"prompt": [f"a {item.class_name}" for item in items]})


@pytest.mark.parametrize("storage", FORMATS)
def test_a_directory_from_before_there_were_prompts_goes_on(tmp_path: Path, monkeypatch, storage: str) -> None:
    """Its images stay, without a prompt, also those in a shard that was open; all of it can still be read."""
    keys = ["logger=none", f"expansion.format={storage}", "expansion.shard_size=8", "expansion.batch_size=5"]
    job, larger = (
        standin_job(compose("expand", [*keys, f"expansion.factor={factor}"]), tmp_path / "made", 20)[0]
        for factor in (1, 2)
    )
    interrupted(job, monkeypatch, batches=2)  # leaves ten images: a shard of eight, and two in the open one
    for going_on, total in ((job, 20), (larger, 40)):
        synthesizer = WithPrompts()
        going_on.synthesizer = lambda title, synthesizer=synthesizer: synthesizer
        assert going_on.run("test") == 0
        rows = rows_of(going_on.path)
        assert len(rows) == total
        assert sum(row["prompt"] is None for row in rows) == 10
        assert all(row["prompt"] in (None, f"a {row['class_name']}") for row in rows)
        if storage == "imagefolder":
            loaded = datasets.load_dataset(storage, data_dir=str(going_on.path), split="train")
        else:
            loaded = datasets.load_dataset(str(going_on.path), split="train")
        prompts = [row["prompt"] for row in loaded["json"]] if storage == "webdataset" else loaded["prompt"]
        assert sorted(prompts, key=str) == sorted((row["prompt"] for row in rows), key=str)
        assert loaded.features["cls" if storage == "webdataset" else "label"].names == ["train", "b.c"]
        image = loaded[0][{"webdataset": "png"}.get(storage, "image")]
        assert image.size == (SIZE, SIZE)
        kept = read_expanded(going_on.path, where=RowFilter("train.where", "prompt == 'a b.c' or prompt == 'a train'"))
        assert len(kept) == total - 10
