"""Sources that cannot be read cost only themselves, and are listed with their reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from conftest import compose
from copies import copying_jobs, failures, noise_folder, spoil

from distdiff.classification.training import few_shot_training_set, training_set
from distdiff.data.datasets import load_dataset
from distdiff.data.examining import identity_of
from distdiff.data.readable import readable
from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return noise_folder(tmp_path)


@pytest.fixture
def job(folder: Path, small_run: list[str], tmp_path: Path) -> Callable[..., ExpansionJob]:
    return copying_jobs(folder, small_run, tmp_path)


def test_unreadable_sources_are_left_out_listed_and_said(folder: Path, job, capsys) -> None:
    spared = job().sources
    shutil.rmtree(job().path)
    lost = [(spared.class_names[spared.labels[i]], spared.keys[i]) for i in (0, len(spared) - 1)]
    for class_name, key in lost:
        spoil(folder / class_name / key)
    made = job()
    assert made.run("test") == 0
    assert len(made.sources) == len(spared) - 2
    rows = failures(made.path)
    assert [(row["class_name"], row["source"], row["stage"]) for row in rows] == [(*place, "read") for place in lost]
    assert all("damaged" in row["reason"] and row["file_name"] is row["copy"] is None for row in rows)
    said = capsys.readouterr().out
    assert f"2 of {len(spared)} training images cannot be read and are left out: {lost[0][0]}/{lost[0][1]}" in said
    assert "2 source images could not be read" in said
    manifest = json.loads((made.path / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["counts"] | {"unreadable": 2, "failed": 0, "images": 2 * len(made.sources)} == manifest["counts"]
    loaded = datasets.load_dataset("imagefolder", data_dir=str(made.path), split="train")
    assert len(loaded) == 2 * len(made.sources)


def test_the_fingerprint_is_that_of_what_can_be_read(folder: Path) -> None:
    config = compose("expand", ["dataset=imagefolder", f"dataset.root={folder}"])
    everything = load_dataset(config.dataset).train
    first = f"{everything.class_names[everything.labels[0]]}/{everything.keys[0]}"
    without = identity_of(everything.select(range(1, len(everything))))
    assert identity_of(everything) != without
    spoil(folder / first)
    assert identity_of(everything) == without == training_set(everything, "crop").fingerprints[0]


def test_the_next_of_a_few_shot_draw_takes_an_unreadable_ones_place(folder: Path) -> None:
    config = compose("expand", ["dataset=imagefolder", f"dataset.root={folder}", "dataset.per_class=3"])
    pool = load_dataset(config.dataset).train
    before = few_shot_training_set(config, pool, 5).parts[0]
    config.dataset.per_class = 4
    larger = few_shot_training_set(config, pool, 5).parts[0]
    config.dataset.per_class = 3
    spoil(folder / "a" / before.keys[1])
    after = few_shot_training_set(config, pool, 5).parts[0]
    chosen, wanted = ({k for k, y in zip(part.keys, part.labels, strict=True) if y == 0} for part in (after, larger))
    assert chosen == wanted - {before.keys[1]}
    assert [image.key for image in after.unreadable] == [before.keys[1]]
    assert after.keys[3:] == before.keys[3:]


def test_too_many_unreadable_sources_end_a_run_before_anything_is_made(folder: Path, job, tmp_path: Path) -> None:
    for number in range(6):
        spoil(folder / "a" / f"{number}.png")
    with pytest.raises(
        UserError, match=r"^[345] of 12 source images cannot be read, more than expansion.max_failures=0.2 "
    ):
        job("expansion.max_failures=0.2")
    assert not (tmp_path / "expanded").exists()
    assert job("expansion.max_failures=null").run("test") == 0
    for value in ("-1", "nan", "many"):
        with pytest.raises(UserError, match=f"expansion.max_failures={value}"):
            job(f"expansion.max_failures={value}")


def test_an_unreadable_test_image_is_left_out_and_a_class_without_any_is_one_line(folder: Path, capsys) -> None:
    test = load_dataset(compose("train", ["dataset=imagefolder", f"dataset.root={folder}"]).dataset).test
    spoil(folder / test.class_names[test.labels[0]] / test.keys[0])
    left, _ = readable(test, "test")
    assert left.keys == test.keys[1:]
    assert f"1 of {len(test)} test images cannot be read" in capsys.readouterr().out
    for label, key in zip(test.labels, test.keys, strict=True):
        if label == 1:
            spoil(folder / "b" / key)
    with pytest.raises(UserError, match="no test image of class b can be read: b/"):
        readable(test, "test")
