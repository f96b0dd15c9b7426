"""The study of Sign Language Digits splits by people: nobody is in two parts, and what is not surely one person is left out."""

import csv
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, compose
from layouts import picture
from sources import load, sizes

from distdiff.data.datasets import prompts

SCRIPT = ROOT / "experiments/studies/sign_digits_by_people.py"
CLASSES = [str(digit) for digit in range(10)]
SURE = 7  # people with a photo of each class


def study(*typed: str | Path) -> int:
    """Runs the script in this process, and returns its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), *map(str, typed)])
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as ending:
            return ending.code
    return 0


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos in the order of their numbers: `SURE` people, and three runs that may not be one person each."""
    number = 100
    for run in [*[CLASSES] * 3, CLASSES[:4] + CLASSES[5:], *[CLASSES] * 2, ["0", "1", *CLASSES[1:]], *[CLASSES] * 2]:
        for digit in run:
            number += 1
            picture(tmp_path / "signs" / digit / f"IMG_{number}.JPG", number)
    for digit in CLASSES:  # numbers that jump within a run
        number += 1 + 3 * (digit == "5")
        picture(tmp_path / "signs" / digit / f"IMG_{number}.JPG", number)
    (tmp_path / "signs/0/.DS_Store").touch()
    return tmp_path / "signs"


def split(photos: Path, target: Path, *more: str) -> list[dict[str, str]]:
    assert study("split", photos, target, "--people", "3", "2", "1", *more) == 0
    with open(target / "people.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_nobody_is_in_two_parts_and_what_is_left_out_is_counted(photos: Path, tmp_path: Path, capsys) -> None:
    rows = split(photos, tmp_path / "people")
    said = capsys.readouterr().out
    assert f"; {SURE} of these are one person each" in said
    assert "left out: 30 photos in 5 runs (runs of photos: 1 of 2, 2 of 5, 2 of 9)" in said
    files = {path.relative_to(tmp_path / "people").as_posix() for path in (tmp_path / "people").rglob("*.JPG")}
    assert files == {row["file_name"] for row in rows}
    numbers: dict[str, list[int]] = {}
    for row in rows:
        numbers.setdefault(row["part"], []).append(int(row["file_name"][-7:-4]))
    assert {part: len(found) for part, found in numbers.items()} == {
        "pretrain": 30,
        "study/train": 20,
        "study/validation": 10,
        "study/test": 10,
    }
    starts = [101, 111, 121, 140, 150, 171, 181]  # of the runs with each class once
    for found in numbers.values():
        people = {max(start for start in starts if start <= number) for number in found}
        assert sorted(found) == sorted(number for start in people for number in range(start, start + 10))


def test_the_same_folder_and_seed_give_the_same_parts(photos: Path, tmp_path: Path) -> None:
    first, again, other = (
        split(photos, tmp_path / name, *more) for name, *more in (["a"], ["b"], ["c", "--seed", "1"])
    )
    assert first == again
    assert first != other


def test_a_study_and_a_pretraining_read_the_parts(photos: Path, tmp_path: Path, monkeypatch) -> None:
    split(photos, tmp_path / "people")
    splits = load("imagefolder", tmp_path, root=str(tmp_path / "people/study"))
    assert sizes(splits) == (20, 10, 10)
    assert list(splits.train.class_names) == CLASSES
    run: list[list[str]] = []
    monkeypatch.setattr(
        subprocess, "run", lambda typed, **_: run.append(typed) or subprocess.CompletedProcess(typed, 0)
    )
    for kind, expected in (
        ("class", [f"a photo of a hand sign for the digit {digit}" for digit in CLASSES]),
        ("single", ["a photo of a hand"] * 10),
    ):
        assert study("pretrain", tmp_path / "people", kind, tmp_path / kind, "pretrain.denoiser_steps=3") == 0
        config = compose("pretrain", run.pop()[2:])
        assert prompts(config.dataset, tuple(CLASSES)) == expected
        assert config.pretrain.output_dir == str(tmp_path / kind)
        assert (config.pretrain.denoiser_steps, config.dataset.image_size) == (3, 32)


def test_data_never_lie_in_the_repository_nor_among_other_files(photos: Path, tmp_path: Path) -> None:
    assert "is no place for data" in study("split", photos, ROOT / "outputs/people")
    assert not (ROOT / "outputs/people").exists()
    assert "is not empty" in study("split", photos, tmp_path)
    assert "too few for --people" in study("split", photos, tmp_path / "people")
    picture(photos / "0/hand.JPG")
    assert "has no number" in study("split", photos, tmp_path / "people")
